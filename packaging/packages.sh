#!/bin/bash
# Makes the packages, tarballs, image, chart, SBOMs and checksums of a version in the folder
# $PACKAGES. `make packages` and `make image` call it with their variables. All that it makes depends on these, the
# source tree and the compilers only.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH

rm -rf "$PACKAGES"
mkdir -p "$PACKAGES"
out=$(cd "$PACKAGES" && pwd)
# What goes into the packages of one architecture. nfpm runs here: cdigen.yaml and
# cdigen-nvml.yaml name files below this folder.
stage=$out/stage
packaging=$PWD/packaging
nfpm=$(realpath -m "${NFPM:?}")

# package_version FORMAT: the version as the format has it. A pre-release sorts before its
# release, what follows a tag after it, and a tree without a tag before all.
package_version() {
	local base=0.0.0 kind='' after hash=${VERSION%-dirty}
	after=git$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d)
	if [[ $hash =~ ^v([0-9.]+)(-([a-z]+)\.?([0-9]+))?(-([0-9]+)-(g[0-9a-f]+))?$ ]]; then
		base=${BASH_REMATCH[1]} kind=${BASH_REMATCH[3]}${BASH_REMATCH[4]} after=${BASH_REMATCH[6]} hash=${BASH_REMATCH[7]}
		[ "$1" != apk ] || after=${after:+p$after}
	fi
	case $1 in
	apk) echo "$base${kind:+_$kind}${after:+_$after}" ;;
	archlinux) echo "$base$kind${after:+.$after.$hash}" ;;
	*) echo "$base${kind:+~$kind}${after:++$after.$hash}" ;;
	esac
}

# notices PROGRAM...: licences and notices of all that is linked into the programs.
notices() {
	local module dir
	echo "The programs of this package contain the following software."
	licences "$(go env GOVERSION)" "$(go env GOROOT)" 1
	go version -m "$@" | awk '$1 == "dep" { print $2 }' | sort -u | xargs go list -m -f '{{.Path}}@{{.Version}} {{.Dir}}' |
		while read -r module dir; do licences "$module" "$dir" 9; done
}

# licences NAME DIRECTORY DEPTH
licences() {
	local file files line=------------------------------------------------------------------------
	mapfile -t files < <(cd "$2" && find . -maxdepth "$3" -type f -iregex '.*/\(licen[cs]e\|copying\|notice\|patents\)[^/]*' ! -name '*.go' ! -path '*/testdata/*' | sort)
	[ ${#files[@]} -gt 0 ] || { echo "no licence of $1 in $2" >&2 && return 1; }
	for file in "${files[@]}"; do
		printf '\n%s\n%s: %s\n%s\n\n' $line "$1" "${file#./}" $line
		cat "$2/$file"
	done
}

# documents PACKAGE PROGRAM...: its folder of documentation.
documents() {
	local name=$1 program
	shift
	mkdir -p "$stage/doc/$name"
	gzip -9nc CHANGELOG.md >"$stage/doc/$name/changelog.gz"
	notices "${@/#/$stage/root/usr/bin/}" | gzip -9n >"$stage/doc/$name/third-party-notices.gz"
	for program; do
		GOPROXY=off "$CYCLONEDX" bin -json -licenses -std -noserial -notimestamp -short-purls -version "$VERSION" \
			-output "$stage/doc/$name/$program.cdx.json" "$stage/root/usr/bin/$program" 2>"$stage/sbom.log" || { cat "$stage/sbom.log" >&2 && return 1; }
	done
}

# package ARCH: everything for an architecture by its Go name.
package() {
	local format name compiler=${CC:-cc}
	[ "$1" = "$(go env GOHOSTARCH)" ] || compiler=$(cross_compiler "$1")
	rm -rf "$stage"
	mkdir -p "$stage"
	make --no-print-directory binaries BIN="$stage/bin" GOARCH="$1" CC="$compiler"
	make --no-print-directory install-files BIN="$stage/bin" MANUAL="$out/manual" DESTDIR="$stage/root" PREFIX=/usr
	make --no-print-directory install-service INIT=openrc DESTDIR="$stage/openrc" PREFIX=/usr
	documents cdigen cdigen cdigen-hook
	documents cdigen-nvml cdigen-nvml
	! wanted tar || tarball "$1"
	! wanted oci || layer "$1"

	gzip -9n "$stage"/root/usr/share/man/man1/*
	mv "$stage/root/usr/share/man/man1/cdigen-nvml.1.gz" "$stage"
	cp -r packaging/scripts packaging/lintian packaging/selinux packaging/copyright LICENSE "$stage"
	cat >"$stage/changelog.yaml" <<-EOF
		- semver: $(package_version deb)-1
		  date: $(date -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
		  packager: The cdigen maintainers <cdigen@users.noreply.github.com>
		  deb: {urgency: medium, distributions: [unstable]}
		  changes: [{note: "Version $VERSION; the changes are in changelog.gz."}]
	EOF
	find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} + # of directories nfpm takes the time
	for format in ${FORMATS:?}; do
		[[ " oci tar chart " != *" $format "* ]] || continue
		for name in cdigen cdigen-nvml; do
			[ "$format $name" = "apk cdigen-nvml" ] || (
				export ARCH=$1 PACKAGE_VERSION ZSH_COMPLETIONS=/usr/share/zsh/site-functions
				PACKAGE_VERSION=$(package_version "$format")
				[ "$format" != deb ] || ZSH_COMPLETIONS=/usr/share/zsh/vendor-completions
				cd "$stage" && "$nfpm" package --config "$packaging/$name.yaml" --packager "$format" --target "$out"
			)
		done
	done
}

# wanted FORMAT
wanted() { [[ " ${FORMATS:?} " = *" $1 "* ]]; }

cross_compiler() {
	case $1 in
	amd64) echo x86_64-linux-gnu-gcc ;;
	arm64) echo aarch64-linux-gnu-gcc ;;
	esac
}

# tarball ARCH: the tree of /usr/local, for machines without any of these packages.
tarball() {
	local name
	name=cdigen-$(package_version tar)-linux-$1
	make --no-print-directory install-files BIN="$stage/bin" MANUAL="$out/manual" DESTDIR="$stage/tar" PREFIX=/usr/local >/dev/null
	mkdir -p "$stage/$name/share/doc"
	cp -a "$stage/tar/usr/local/." "$stage/$name"
	cp -a "$stage/doc/." "$stage/$name/share/doc"
	cp -a "$stage/tar/etc/cdigen/." LICENSE "$stage/$name/share/doc/cdigen"
	archive "$stage" "$name" | gzip -9n >"$out/$name.tar.gz"
}

# archive FOLDER NAME: what is in the folder by that name, the same bytes for the same files.
archive() {
	tar -C "$1" --dereference --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$2"
}

# layer ARCH: the files of the image.
layer() {
	local root=$stage/layer
	mkdir -p "$root/usr/bin" "$root/usr/share/doc" "$out/layers"
	cp "$stage/root/usr/bin/cdigen" "$stage/root/usr/bin/cdigen-nvml" "$root/usr/bin"
	cp -r "$stage/doc/." "$root/usr/share/doc"
	cp LICENSE "$root/usr/share/doc/cdigen"
	rm "$root/usr/share/doc/cdigen/cdigen-hook.cdx.json"
	archive "$root" usr >"$out/layers/$1.tar"
}

# image: one of the layers of all architectures.
image() {
	local name
	name=cdigen-$(package_version tar)-oci
	go -C packaging/image run . -name "${IMAGE:?}" -version "$VERSION" -created "$SOURCE_DATE_EPOCH" -output "$stage/$name" "$out"/layers/*.tar
	archive "$stage/$name" . >"$out/$name.tar"
}

# chart: of the version, with the files that it shares with other packages.
chart() {
	mkdir -p "$stage/chart"
	cp -rL packaging/helm/cdigen "$stage/chart"
	sed -i -e "s/^version:.*/version: $(chart_version)/; s/^appVersion:.*/appVersion: $VERSION/" "$stage/chart/cdigen/Chart.yaml"
	archive "$stage/chart" cdigen | gzip -9n >"$out/cdigen-chart-$(chart_version).tgz"
}

# chart_version: a semantic version also of a tree without a tag.
chart_version() {
	if [[ $VERSION =~ ^v[0-9]+\.[0-9]+\.[0-9]+ ]]; then echo "${VERSION#v}"; else echo "0.0.0-git-$VERSION"; fi
}

# Its completions are printed by a program of this machine.
make --no-print-directory manual BIN="$out/bin" MANUAL="$out/manual"
for arch in ${ARCHS:?}; do
	package "$arch"
done
! wanted oci || image
! wanted chart || chart
rm -rf "$stage" "${out:?}/bin" "$out/manual" "$out/layers"
(cd "$out" && sha256sum -- * >SHA256SUMS)
