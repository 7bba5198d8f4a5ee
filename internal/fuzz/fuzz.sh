#!/bin/bash
# Runs every fuzz target of the module for a while each: fuzz.sh 10s
set -euo pipefail
go=${GO:-go}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() {
	"$go" test -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime 1s "$1" | tee "$log"
}

# Up to Go 1.26 the end of the time may count as a failure (golang/go#75804): the target
# then says so and nothing else. A failure that was found has an input, which is written.
out_of_time() {
	grep -A 1 '^--- FAIL: Fuzz' "$log" | tail -n 1 | grep -qx ' *context deadline exceeded' &&
		! grep -qE 'Failing input|panic:|^ +.*_test\.go:' "$log"
}

for package in $("$go" list ./...); do
	for target in $("$go" test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "fuzz $package $target"
		for _ in 1 2 3 4 5; do
			! fuzz "$package" "$target" "$1" || continue 2
			out_of_time || break
		done
		exit 1
	done
done
