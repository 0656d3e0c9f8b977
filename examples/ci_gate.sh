#!/usr/bin/env bash
# Let a candidate model pass only when nothing in it looks broken: ci_gate.sh PRODUCTION CANDIDATE [REPORT]
#
# Weights that differ are expected here, so that --fail-on names what is not: findings of severity "critical".
# Status 0: passed. 1: refused. 2: could not be judged (a file that cannot be read, a wrong option).
set -uo pipefail

production=$1 candidate=$2 report=${3:-comparison.ndjson}

diffai "$production" "$candidate" --fail-on critical --output ndjson > "$report"
status=$?

case $status in
    0) echo "passed: $candidate shows nothing critical" ;;
    1) echo "refused: $candidate shows critical findings, see $report" >&2 ;;
    *) echo "not judged: diffai ended with $status, see $report" >&2 ;;
esac
exit "$status"
