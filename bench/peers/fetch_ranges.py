"""Fetch the ranges that a log lists, several at once, with obstore, and throw them away: the floor of a remote comparison.

python bench/peers/fetch_ranges.py http|s3 ADDRESS LOG
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import HTTPStore, S3Store

REQUESTS = 8  # at once, as diffai


def main() -> None:
    """Fetch them all, in the order of the log."""
    kind, address, log = sys.argv[1:]
    lines = [line.split() for line in Path(log).read_text().splitlines()]
    bucket = lines[0][0].partition("/")[0]
    options = {"allow_http": True}
    if kind == "s3":
        store = S3Store(bucket, endpoint=address, client_options=options)
    else:
        store = HTTPStore.from_url(f"{address}/{bucket}", client_options=options)

    def fetch(line: list[str]) -> int:
        key, start, stop = line[0].partition("/")[2], int(line[1]), int(line[2])
        return len(obstore.get(store, key, options={"range": (start, stop)}).bytes())

    with ThreadPoolExecutor(REQUESTS) as pool:
        print(sum(pool.map(fetch, lines)))


if __name__ == "__main__":
    main()
