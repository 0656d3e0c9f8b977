"""States to findings: one row of `catalogue.py` an analysis, with pure functions over finished columns."""
