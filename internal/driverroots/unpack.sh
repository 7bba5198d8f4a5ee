#!/bin/bash
# Makes driver roots from Debian's own packages, one of each series of the driver that
# Debian has. Each is a small Debian with the whole NVIDIA user-space driver, the
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

# A root each: its name, the suite that has the driver, the one that the rest is from, what
# the names of the driver's packages have in them, and its architecture. Programs are always
# of amd64, which the maintainer scripts run.
roots=(
	"390 bullseye bookworm legacy-390xx amd64"
	"470 bookworm bookworm tesla-470 amd64"
	"535 bookworm bookworm - amd64"
	"535-arm64 bookworm bookworm - arm64"
	"550 trixie trixie - amd64"
	"550-arm64 trixie trixie - arm64"
	"555 experimental trixie - amd64"
)

# What a root is made of beside the driver: from main the programs that the maintainer
# scripts run, and of the root's architecture the loader and a part of the driver that is
# free software.
programs=(libc6 dash coreutils grep libpcre2-8-0 dpkg libmd0 libselinux1)
main=(libc6 libc-bin libnvidia-egl-wayland1)
contrib=(
	glx-alternative-nvidia libnvidia-egl-gbm1 nvidia-modprobe nvidia-persistenced
	nvidia-settings
)
contrib_amd64=(nvidia-xconfig)
# Of the driver's packages, those that have no part of the driver for programs: what is for
# the kernel, and what tells which driver a GPU needs.
not_driver='-kernel-|-detect$|-legacy-check$'
# The ones of them that are unpacked for i386 too.
driver_32='cuda1$|-ml1$|ptxjitcompiler1$|-gpucomp$|-fatbinaryloader$'

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

# read_index SECTION SUITE ARCH brings the section's index.
read_index() {
	local section=$1 suite=$2 arch=amd64,${3/amd64/i386} state=$work/apt/$1 try
	mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
	echo "deb [arch=$arch signed-by=$keyring] $mirror $suite $section" >"$state/sources.list"
	# The cache may lie where the user _apt may not go, hence Sandbox.
	cat >"$state/apt.conf" <<-CONF
		#clear APT::Architectures;
		#clear APT::Update;
		#clear DPkg::Post-Invoke;
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; "i386"; "arm64"; };
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

# download SECTION SUITE ARCH PACKAGE... brings the section's packages.
download() {
	local section=$1 suite=$2 arch=$3
	shift 3
	read_index "$section" "$suite" "$arch" && (cd "$work/debs" && apt_get "$section" download "$@")
}

# driver_packages SECTION ARCH SOURCE lists the packages of the driver that a section has.
driver_packages() {
	apt-cache -c "$work/apt/$1/apt.conf" dumpavail |
		awk -v source="$3" -v arch="$2" -v not_driver="$not_driver" -v driver_32="$driver_32" '
			function flush() {
				if (from == source && name !~ not_driver && (is == arch || arch == "amd64" && is == "i386" && name ~ driver_32))
					print name ":" is
				name = from = is = ""
			}
			$1 == "Package:" { name = $2 }
			$1 == "Source:" { from = $2 }
			$1 == "Architecture:" { is = $2 }
			NF == 0 { flush() }
			END { flush() }'
}

# download_driver SECTION SUITE FLAVOUR ARCH brings the driver's packages of a section, with
# those that a flavour shares with the suite's own driver.
download_driver() {
	local section=$1 suite=$2 flavour=$3 arch=$4 packages
	read_index "$section" "$suite" "$arch" || return 1
	if [ -z "$flavour" ]; then
		mapfile -t packages < <(driver_packages "$section" "$arch" nvidia-graphics-drivers)
	else
		mapfile -t packages < <(driver_packages "$section" "$arch" "nvidia-graphics-drivers-$flavour")
		packages+=("nvidia-"{egl,opencl,vulkan}"-common:$arch" "nvidia-libopencl1:$arch")
	fi
	(cd "$work/debs" && apt_get "$section" download "${packages[@]}")
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

# make_cache ROOT ARCH runs the root's own ldconfig.
make_cache() {
	local root=$1
	if [ "$2" = amd64 ]; then
		# From libc6:i386, which a host with 32-bit libraries has.
		printf '%s\n' /usr/local/lib/i386-linux-gnu /lib/i386-linux-gnu /usr/lib/i386-linux-gnu \
			/usr/local/lib/i686-linux-gnu /lib/i686-linux-gnu /usr/lib/i686-linux-gnu \
			>"$root/etc/ld.so.conf.d/i386-linux-gnu.conf"
		in_root "$root" /sbin/ldconfig
	else
		cp "$qemu" "$root/tmp/qemu"
		in_root "$root" /tmp/qemu /sbin/ldconfig
		rm "$root/tmp/qemu"
	fi
}

# get_qemu brings the program that runs others of arm64.
get_qemu() {
	[ ! -x "$qemu" ] || return 0
	work=$cache/.work-qemu
	rm -rf "$work"
	mkdir -p "$work/debs"
	say "downloading qemu-user-static"
	download main bookworm amd64 qemu-user-static || die "cannot get qemu-user-static: $(last_error)"
	dpkg-deb --fsys-tarfile "$work"/debs/*.deb | tar -x -C "$work" ./usr/bin/qemu-aarch64-static
	mv "$work/usr/bin/qemu-aarch64-static" "$qemu"
	rm -rf "$work"
}

# is_made WITHOUT reports whether the root is there as it would be made now, without what
# cannot be had.
is_made() { cmp -s <(sed '/^$/,$d' "$made/driver-root" 2>/dev/null) <(printf '%s\n' "$recipe" "without:$1"); }

# make_root NAME SUITE BASE FLAVOUR ARCH makes the root NAME, unless it is there.
make_root() {
	local name=$1 suite=$2 base=$3 flavour=${4#-} arch=$5 made=$cache/$1 work=$cache/.work-$1 version failed='' without=''
	local root=$work/root alternative=nvidia${flavour:+-$flavour}-alternative triplet=aarch64-linux-gnu
	local contrib=("${contrib[@]}")
	if [ "$arch" = amd64 ]; then
		contrib+=("${contrib_amd64[@]}")
		triplet=x86_64-linux-gnu
	fi
	local recipe="$* ${programs[*]} ${main[*]} ${contrib[*]} $not_driver $driver_32"

	if is_made ''; then
		echo "$made"
		return
	fi

	rm -rf "$work"
	mkdir -p "$work/debs"
	say "$name: downloading the driver of $suite for $arch"
	if ! download contrib "$base" "$arch" "${contrib[@]/%/:$arch}"; then
		say "$name: goes without contrib of $base: $(last_error)"
		without+=' contrib'
	fi
	if [ "${name%%-*}" -ge 535 ] && ! download_driver non-free-firmware "$suite" '' "$arch"; then
		say "$name: goes without non-free-firmware of $suite: $(last_error)"
		without+=' non-free-firmware'
	fi
	# A root made without what cannot be had today either stays.
	if is_made "$without"; then
		rm -rf "$work"
		echo "$made"
		return
	fi
	if ! download main "$base" "$arch" "${programs[@]/%/:amd64}" "${main[@]/%/:$arch}"; then
		failed="cannot get main of $base: $(last_error)"
	elif ! download_driver non-free "$suite" "$flavour" "$arch"; then
		failed="cannot get non-free of $suite: $(last_error)"
	fi
	if [ -n "$failed" ]; then
		[ -e "$made/driver-root" ] || die "$name: $failed"
		say "$name: not made again: $failed"
		rm -rf "$work"
		echo "$made"
		return
	fi

	unpack "$root"
	version=$(sed -n "s/^lib[^ ]*cuda1:$arch //p" "$work/packages")
	[[ $version == "${name%%-*}".* ]] || die "$name: $suite has version $version of the driver by now"

	# The driver's own package makes the links to the driver in use; that done, the
	# other one makes those to NVIDIA as the vendor of OpenGL and X modules.
	configure "$alternative" "register-$alternative" "$root"
	configure glx-alternative-nvidia register-glx-alternative-nvidia--pong "$root"
	in_root "$root" /usr/bin/test -e "/usr/lib/$triplet/libcuda.so.1" ||
		die "$name: the packages' scripts made no link to libcuda.so.1"
	make_cache "$root" "$arch" || die "$name: ldconfig fails"

	{
		printf '%s\n' "$recipe" "without:$without" ''
		sort "$work/packages"
	} >"$root/driver-root"
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
trap 'rm -rf "$cache"/.work-*' EXIT
qemu=$cache/qemu-aarch64-static
get_qemu

# Two at a time: one downloads while the other unpacks.
status=0
for root in "${roots[@]}"; do
	[ "$(jobs -rp | wc -l)" -lt 2 ] || wait -n || status=1
	read -ra arguments <<<"$root"
	make_root "${arguments[@]}" &
done
while [ -n "$(jobs -rp)" ]; do wait -n || status=1; done
exit "$status"
