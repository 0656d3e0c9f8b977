"""Stored bytes to numbers: one row an encoding in `catalogue.py`, the loops in `kernels.py`."""
