#!/usr/bin/env bash
# Turn the records into log lines while the files are still being read: log_pipeline.sh OLD NEW
#
# Each line is one JSON object with the fields a log store indexes; names are values, never keys. The status is that of
# diffai where it is trouble (2), else 0: that models differ is no failure of a pipeline.
set -uo pipefail

diffai "$1" "$2" --output ndjson --exit-zero | jq -c '
    if .type == "anomaly" then
        {level: .severity, event: .kind, where: .subject, side, value, limit: .threshold, count, run: .run_id}
    elif .type == "error" then
        {level: "error", event: .error, where: .tensor, path, message, run: .run_id}
    elif .type == "summary" then
        {level: "info", event: "compared", status, changed: .counts.changed, nbytes: .read_nbytes, run: .run_id}
    else
        empty
    end'
