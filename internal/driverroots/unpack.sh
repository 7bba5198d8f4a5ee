#!/bin/bash
# Makes two driver roots from Debian's own packages: 535 (bookworm) and 550
# (trixie). Each is a small Debian with the whole NVIDIA user-space driver, the
# alternatives links that the packages' maintainer scripts make, and a real
# ld.so.cache. Nothing is installed here and apt's own state is not touched.
#
# The roots lie in $CDIGEN_CACHE (default: $XDG_CACHE_HOME/cdigen) and their
# paths are printed. The driver is NVIDIA's and not free software: what lies
# there must not be committed or passed on.
#
# DEBIAN_MIRROR names the mirror; by default it is the one that apt uses here.
set -euo pipefail
shopt -s inherit_errexit

cache=${CDIGEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cdigen}/driver-roots
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# What a root is made of, by section of the archive: from main the programs that
# the maintainer scripts run, and a part of the driver that is free software.
main=(
	libc6 libc-bin dash coreutils grep libpcre2-8-0 dpkg libmd0 libselinux1
	libnvidia-egl-wayland1
)
non_free=(
	libcuda1 libcuda1:i386 libcudadebugger1 libegl-nvidia0 libgl1-nvidia-glvnd-glx
	libgles-nvidia1 libgles-nvidia2 libglx-nvidia0 libnvcuvid1 libnvidia-allocator1
	libnvidia-api1 libnvidia-cfg1 libnvidia-eglcore libnvidia-encode1 libnvidia-fbc1
	libnvidia-glcore libnvidia-glvkspirv libnvidia-ml1 libnvidia-ml1:i386 libnvidia-ngx1
	libnvidia-nvvm4 libnvidia-opticalflow1 libnvidia-pkcs11-openssl3
	libnvidia-ptxjitcompiler1 libnvidia-ptxjitcompiler1:i386 libnvidia-rtcore libnvoptix1
	nvidia-alternative nvidia-cuda-mps nvidia-driver-bin nvidia-driver-libs
	nvidia-egl-common nvidia-egl-icd nvidia-libopencl1 nvidia-opencl-common
	nvidia-opencl-icd nvidia-powerd nvidia-smi nvidia-vdpau-driver nvidia-vulkan-common
	nvidia-vulkan-icd xserver-xorg-video-nvidia
)
contrib=(
	glx-alternative-nvidia libnvidia-egl-gbm1 nvidia-modprobe nvidia-persistenced
	nvidia-settings nvidia-xconfig
)
non_free_firmware=(firmware-nvidia-gsp)

say() { echo "driver-roots: $*" >&2; }
die() {
	say "$*"
	exit 1
}

# apt_get SECTION ARGUMENT... runs apt-get on the index of one section of $suite.
# Each section has a state of its own, because apt takes the indexes of a
# release all or none, and a mirror in the middle of a sync may lack one.
apt_get() {
	local state=$work/apt/$1
	shift
	apt-get -qq -c "$state/apt.conf" "$@" </dev/null >"$work/log" 2>&1
}

# last_error prints why apt-get failed, in one line.
last_error() { grep -m1 '^E:' "$work/log" || tail -n1 "$work/log"; }

# read_index SECTION brings the section's index.
read_index() {
	local section=$1 state=$work/apt/$1 arch=amd64 try
	[ "$section" != non-free ] || arch=amd64,i386
	mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
	echo "deb [arch=$arch signed-by=$keyring] $mirror $suite $section" >"$state/sources.list"
	# The cache may lie where the user _apt may not go, hence Sandbox.
	cat >"$state/apt.conf" <<-CONF
		#clear APT::Architectures;
		#clear APT::Update;
		#clear DPkg::Post-Invoke;
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; "i386"; };
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "3";
		Dir::Cache "$state/cache";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::Etc::sourcelist "$state/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::State::lists "$state/lists";
		Dir::State::status "/dev/null";
	CONF
	for try in 1 2 3; do
		[ "$try" = 1 ] || sleep 5
		# Without Error-Mode a failed download is only a warning.
		! apt_get "$section" -o APT::Update::Error-Mode=any update || return 0
	done
	return 1
}

# download SECTION PACKAGE... brings the section's packages.
download() {
	local section=$1
	shift
	read_index "$section" && (cd "$work/debs" && apt_get "$section" download "$@")
}

# in_root ROOT COMMAND... runs a command of the root in the root.
in_root() {
	local enter=(chroot)
	[ "$(id -u)" = 0 ] || enter=(unshare --map-root-user chroot)
	env -i PATH=/usr/sbin:/usr/bin "${enter[@]}" "$@"
}

# unpack ROOT unpacks all packages below ROOT.
unpack() {
	local root=$1 dir deb
	# Both releases have one /usr only; the links are base-files' in trixie.
	for dir in bin sbin lib lib64; do
		mkdir -p "$root/usr/$dir"
		ln -s "usr/$dir" "$root/$dir"
	done
	mkdir -p "$root"/{etc/alternatives,proc,sys,dev,tmp,run,var/log,var/lib/dpkg/{alternatives,updates,triggers,info}}
	touch "$root/var/lib/dpkg/status"
	for deb in "$work"/debs/*.deb; do
		# dpkg -x would make directories of the links.
		dpkg-deb --fsys-tarfile "$deb" | tar -x -p --keep-directory-symlink -C "$root"
		# shellcheck disable=SC2016 # for dpkg-deb
		dpkg-deb -W --showformat '${Package}:${Architecture} ${Version}\n' "$deb" >>"$work/packages"
	done
	rm -rf "$root/usr/share/"{bash-completion,bug,doc,info,lintian,locale,man}
}

# configure PACKAGE TRIGGER ROOT runs the package's own postinst as dpkg does
# when TRIGGER is pending.
configure() {
	local package=$1 trigger=$2 root=$3 debs
	debs=("$work/debs/${package}"_*.deb)
	[ -e "${debs[0]}" ] || return 0
	dpkg-deb --info "${debs[0]}" postinst >"$root/tmp/postinst"
	in_root "$root" /usr/bin/env DPKG_MAINTSCRIPT_PACKAGE="$package" DPKG_MAINTSCRIPT_ARCH=amd64 \
		DPKG_MAINTSCRIPT_NAME=postinst /bin/sh /tmp/postinst triggered "$trigger" >"$work/log" 2>&1 ||
		die "$name: the postinst of $package fails: $(tail -n1 "$work/log")"
	rm "$root/tmp/postinst"
}

# has_all STAMP PACKAGE... tells whether the stamp names all packages.
has_all() {
	local stamp=$1 package
	shift
	for package; do
		[[ $package == *:* ]] || package=$package:amd64
		grep -q -e "^$package " -e "^${package%:*}:all " "$stamp" 2>/dev/null || return 1
	done
}

# make_root NAME SUITE [PACKAGE...] makes the root NAME, the series of the driver,
# unless it is there. PACKAGE is what only this series has in non-free.
make_root() {
	local name=$1 suite=$2 made=$cache/$1 root=$work/root version failed=''
	shift 2
	local required=("${main[@]}" "${non_free[@]}" "$@")
	local wanted=("${required[@]}" "${contrib[@]}" "${non_free_firmware[@]}")

	if has_all "$made/driver-root" "${wanted[@]}"; then
		echo "$made"
		return
	fi

	rm -rf "$work"
	mkdir -p "$work/debs"
	say "$name: downloading ${#wanted[@]} packages of $suite"
	wanted=("${required[@]}")
	if download contrib "${contrib[@]}"; then
		wanted+=("${contrib[@]}")
	else
		say "$name: goes without contrib of $suite: $(last_error)"
	fi
	if download non-free-firmware "${non_free_firmware[@]}"; then
		wanted+=("${non_free_firmware[@]}")
	else
		say "$name: goes without non-free-firmware of $suite: $(last_error)"
	fi
	# A root made without what cannot be had today either stays.
	if has_all "$made/driver-root" "${wanted[@]}"; then
		echo "$made"
		return
	fi
	if ! download main "${main[@]}"; then
		failed="cannot get main of $suite: $(last_error)"
	elif ! download non-free "${non_free[@]}" "$@"; then
		failed="cannot get non-free of $suite: $(last_error)"
	fi
	if [ -n "$failed" ]; then
		has_all "$made/driver-root" "${required[@]}" || die "$name: $failed"
		say "$name: not made anew: $failed"
		echo "$made"
		return
	fi

	unpack "$root"
	version=$(sed -n 's/^libcuda1:amd64 //p' "$work/packages")
	[[ $version == "$name".* ]] || die "$name: $suite has version $version of the driver by now"

	# nvidia-alternative makes the links to the driver in use; that done, the
	# other one makes those to NVIDIA as the vendor of OpenGL and X modules.
	configure nvidia-alternative register-nvidia-alternative "$root"
	configure glx-alternative-nvidia register-glx-alternative-nvidia--pong "$root"
	in_root "$root" /usr/bin/test -e /usr/lib/x86_64-linux-gnu/libcuda.so.1 ||
		die "$name: the packages' scripts made no link to libcuda.so.1"

	# From libc6:i386, which a host with 32-bit libraries has.
	printf '%s\n' /usr/local/lib/i386-linux-gnu /lib/i386-linux-gnu /usr/lib/i386-linux-gnu \
		/usr/local/lib/i686-linux-gnu /lib/i686-linux-gnu /usr/lib/i686-linux-gnu \
		>"$root/etc/ld.so.conf.d/i386-linux-gnu.conf"
	in_root "$root" /sbin/ldconfig || die "$name: ldconfig fails"

	sort -o "$root/driver-root" "$work/packages"
	rm -rf "$made"
	mv "$root" "$made"
	rm -rf "$work"
	say "$name: version ${version%-*} is in $made"
	echo "$made"
}

for tool in apt-get dpkg-deb flock tar unshare; do
	command -v "$tool" >/dev/null || die "needs $tool, so a Debian or a kin of it"
done
[ "$(uname -m)" = x86_64 ] || die "runs programs of amd64, this is $(uname -m)"
[ -e "$keyring" ] || die "needs $keyring (package debian-archive-keyring)"
[ "$(id -u)" = 0 ] || unshare --map-root-user true 2>/dev/null || die "needs root or user namespaces, to run programs in the roots"

# shellcheck disable=SC2016 # for apt-get
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
	grep -m1 -E '/debian/' || true)}
[ -n "$mirror" ] || die "no Debian mirror among the sources of apt: set DEBIAN_MIRROR"

umask 022
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
work=$cache/.work
trap 'rm -rf "$work"' EXIT

make_root 535 bookworm
make_root 550 trixie libnvidia-gpucomp libnvidia-gpucomp:i386
