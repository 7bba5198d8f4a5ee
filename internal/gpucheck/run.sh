#!/bin/bash
# Runs gpu-check, as make gpu-check has put it together, on this machine when it has an
# NVIDIA driver, else on the simulated host of make demo.
set -euo pipefail
cd "$(dirname "$0")/../.."

report=build/gpu-check-report
rm -rf "$report"
flags=(--output "$report")
if [ -e /proc/driver/nvidia/version ]; then
	echo "This machine has an NVIDIA driver; checking the machine itself."
else
	echo "This machine has no NVIDIA driver; checking the simulated host testdata/hosts/demo.yaml."
	host=build/gpu-check-host
	nvml=$(go run ./discover/simhost/fakenvml/cmd/fakenvml)
	rm -rf "$host"
	go run ./discover/simhost/cmd/simhost -nvml "$nvml" testdata/hosts/demo.yaml "$host" >/dev/null
	flags+=(--simulated "$host" --runs 5 --watch-seconds 5)
fi
build/gpu-check/gpu-check "${flags[@]}" "$@"
