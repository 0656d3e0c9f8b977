"""The compiled entry points of the main road, by name; their arguments are those of `kernels/*_entries.py`."""

from __future__ import annotations

from diffai_stream.native import Entry

SCAN, FINISH, JOINT = (f"diffai_stream.statistics.kernels.{name}_entries" for name in ("scan", "finish", "joint"))

scan_pair32 = Entry(SCAN, "scan_pair32")
scan_pair64 = Entry(SCAN, "scan_pair64")
merge_rows = Entry(FINISH, "merge_rows")
moments_of_runs = Entry(FINISH, "moments_of_runs")
coarsen = Entry(FINISH, "coarsen")
quantiles_of_runs = Entry(FINISH, "quantiles_of_runs")
distances_of_runs = Entry(FINISH, "distances_of_runs")
law_distance = Entry(FINISH, "law_distance")
bin_run = Entry(FINISH, "bin_run")
codes_of_runs = Entry(FINISH, "codes_of_runs")
fold_rows = Entry(FINISH, "fold_rows")
scan_pairs = Entry(JOINT, "scan_pairs")
finish_pairs = Entry(JOINT, "finish_pairs")
