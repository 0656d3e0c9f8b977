"""The compiled entry points of the main road, by name; their arguments are those of `kernels/entries.py`."""

from __future__ import annotations

from diffai_stream.native import Entry

MODULE = "diffai_stream.statistics.kernels.entries"

scan_pair32 = Entry(MODULE, "scan_pair32")
scan_pair64 = Entry(MODULE, "scan_pair64")
merge_rows = Entry(MODULE, "merge_rows")
moments_of_runs = Entry(MODULE, "moments_of_runs")
coarsen = Entry(MODULE, "coarsen")
quantiles_of_runs = Entry(MODULE, "quantiles_of_runs")
distances_of_runs = Entry(MODULE, "distances_of_runs")
law_distance = Entry(MODULE, "law_distance")
bin_run = Entry(MODULE, "bin_run")
codes_of_runs = Entry(MODULE, "codes_of_runs")
fold_rows = Entry(MODULE, "fold_rows")
