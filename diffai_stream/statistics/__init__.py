"""Numbers to mergeable states: a statistic is a row of `catalogue.py`, its loops are in `kernels/`."""
