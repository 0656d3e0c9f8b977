#!/usr/bin/env bash
# Hold a candidate against limits and tell a CI system, which reads JUnit XML: regression_gate.sh PRODUCTION CANDIDATE [REPORT]
#
# No layer may change by more than 5 %, nothing may become NaN, the embeddings must stay as they are. Status 0: all gates
# passed. 1: one failed. 2: could not be judged. The report has a test case for each gate, whatever the status.
set -uo pipefail

production=$1 candidate=$2 report=${3:-junit.xml}

diffai "$production" "$candidate" --regression-test --alert-on-degradation --tolerance 0.05 \
    --expect-unchanged '*embed_tokens*' --output junit-xml > "$report"
status=$?

failures=$(grep -c '<failure' "$report")
echo "$failures test cases failed, see $report"
exit "$status"
