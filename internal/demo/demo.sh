#!/bin/bash
# Shows what cdigen finds and publishes: on this host when it has an NVIDIA
# driver, else on a simulated one with 8 GPUs, two of them in MIG mode. The spec
# goes below build/, not to where engines would use it.
set -euo pipefail
cd "$(dirname "$0")/../.."

spec=build/demo/cdi/nvidia.yaml
host=build/demo/host
flags=()

if [ -e /proc/driver/nvidia/version ]; then
	echo "This machine has an NVIDIA driver; looking at the machine itself."
else
	echo "This machine has no NVIDIA driver; looking at the simulated host testdata/hosts/demo.yaml."
	nvml=$(go run ./discover/simhost/fakenvml/cmd/fakenvml)
	rm -rf "$host"
	mkdir -p "$host"
	root=$(go run ./discover/simhost/cmd/simhost -nvml "$nvml" testdata/hosts/demo.yaml "$host")
	flags=(--driver-root "$root" --dev-root "$host" --proc-root "$host/proc" --sys-root "$host/sys")
	if [ "$(id -u)" != 0 ]; then
		echo "Only root can make device nodes; a table of them stands in for /dev."
		flags+=(--dev-nodes "$host/dev-nodes")
	fi
fi

run() {
	echo
	echo "\$ $*"
	"$@"
}

mkdir -p "$(dirname "$spec")"
run bin/cdigen generate --output "$spec" "${flags[@]}"
echo
echo "\$ cat $spec"
head -n 14 "$spec"
echo "… $(($(wc -l <"$spec") - 14)) more lines in $spec"
run bin/cdigen list --spec-dir "$(dirname "$spec")" "${flags[@]}"
run bin/cdigen info --tree "${flags[@]}"
echo
echo "Next, on a machine with GPUs: sudo make install && sudo cdigen generate, then"
echo "  podman run --rm --device nvidia.com/gpu=all debian nvidia-smi -L"
