"""The records in a database, without a schema or a loader: `python examples/query_records.py OLD NEW`

Runs `diffai`, keeps its records as one line of JSON each, and asks DuckDB about them (pip install duckdb).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb

LAYERS = """
SELECT layer, count(*) AS tensors, round(max(change.relative_l2), 4) AS largest
FROM read_json('{path}', field_appearance_threshold = 0)
WHERE type = 'tensor' AND change IS NOT NULL AND layer IS NOT NULL
GROUP BY layer ORDER BY largest DESC LIMIT 3
"""
BROKEN = """
SELECT kind, count(*) FROM read_json('{path}', field_appearance_threshold = 0)
WHERE type = 'anomaly' AND severity = 'critical' GROUP BY kind ORDER BY kind
"""


def main(old: str, new: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changes.ndjson"
        with path.open("wb") as file:
            subprocess.run(["diffai", old, new, "--output", "ndjson", "--exit-zero"], stdout=file, check=True)
        for layer, tensors, largest in duckdb.sql(LAYERS.format(path=path)).fetchall():
            print(f"{layer}: {tensors} tensors, relative change up to {largest}")
        for kind, count in duckdb.sql(BROKEN.format(path=path)).fetchall():
            print(f"{kind}: {count}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
