#!/bin/bash
# Installs the Debian packages that the tests need beyond Go and a C compiler.
# Where it cannot, it says so in one line and the tests that need them are
# skipped; with CI=true that is a failure.
set -euo pipefail

# command:package
needed=(
	podman:podman crun:crun runc:runc conmon:conmon newuidmap:uidmap
	debootstrap:debootstrap strace:strace setpriv:util-linux
	systemd-nspawn:systemd-container nsenter:util-linux pgrep:procps
	busybox:busybox-static musl-gcc:musl-tools lxc-execute:lxc shellcheck:shellcheck
	# For make packages and make repository.
	aarch64-linux-gnu-gcc:crossbuild-essential-arm64
	apt-ftparchive:apt-utils createrepo_c:createrepo-c gpg:gpg rpmsign:rpm
)

cannot() {
	echo "make test: $1: tests that need it are skipped" >&2
	[ "${CI:-}" != true ]
	exit
}

missing=()
for pair in "${needed[@]}"; do
	# Some of them are in sbin, which an ordinary user's PATH may lack.
	PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done

[ "$(id -u)" = 0 ] || cannot "not root, so no device nodes and no container runtimes"
[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || cannot "no apt-get to install ${missing[*]}"

echo "make test: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install() {
	apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install || { apt-get update -qq </dev/null >>"$log" 2>&1 && install; } || {
	tail -n 3 "$log" >&2
	cannot "apt-get cannot install ${missing[*]}"
}
