"""From a path to a `Checkpoint`: one module a format, one row each in `catalogue.py`."""
