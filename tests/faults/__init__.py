"""Faults while the command runs: nothing lost, nothing wrong, nothing hung. `python -m tests.faults --help`."""
