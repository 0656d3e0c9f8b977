"""Mutated files for every format: only clean errors, no hang, no crash, no memory by claim. `python -m tests.fuzz --help`."""
