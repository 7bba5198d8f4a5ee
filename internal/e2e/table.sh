#!/bin/bash
# Prints the results of engines from docs/engines.md: table.sh podman,docker-28
set -euo pipefail
cd "$(dirname "$0")/../.."
awk -v wanted="$1" '
BEGIN { n = split(wanted, names, ",") }
/^<!-- end/ { exit }
/^<\/?(details|summary)/ { next }
/^What was measured/ { skip = 1 }
/^Kubernetes, / { skip = 0; kubernetes = 1 }
!begun { begun = /^<!-- begin/; next }
skip || kubernetes && !asked("kubernetes") { next }
/^\| [a-z][a-z-]*-[0-9.]/ && !asked($2) { next }
{ print }
function asked(name, i) {
	for (i = 1; i <= n; i++)
		if (names[i] == "all" || index(name, names[i]) == 1)
			return 1
	return 0
}' docs/engines.md
