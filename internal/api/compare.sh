#!/bin/sh
# Compares the public Go packages with those of the last release, a tag vX.Y.Z. Each incompatible
# change has to be named in CHANGELOG.md under Unreleased, as in "`spec.New`".
#
#	compare.sh APIDIFF
set -eu
apidiff=$1
module=$(go list -m)
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*.[0-9]*.[0-9]*' 2>/dev/null) || {
	echo "there is no release yet to compare with"
	exit 0
}
work=$(mktemp -d)
trap 'git worktree remove --force "$work/old" 2>/dev/null; rm -rf "$work"' EXIT
# apidiff says of each package below internal that it passes over it.
run() { "$apidiff" "$@" 2>"$work/errors" || { cat "$work/errors" >&2; exit 1; }; }
git worktree add --quiet --detach "$work/old" "$tag"
(cd "$work/old" && run -m -w "$work/old.api" "$module")
run -m -incompatible "$work/old.api" "$module" >"$work/changes"
sed '/^## \[Unreleased\]/,/^## \[[0-9]/!d' CHANGELOG.md >"$work/unreleased"
status=0
while read -r sign name _; do
	test "$sign" = - || continue
	name=${name%:}
	name=${name##*/}
	grep -qF "\`${name#./}\`" "$work/unreleased" || {
		echo "$name changed incompatibly since $tag: keep it, or name \`${name#./}\` in CHANGELOG.md"
		status=1
	}
done <"$work/changes"
cat "$work/changes"
test $status = 1 || echo "compatible with $tag, but for what CHANGELOG.md names"
exit $status
