"""Compiled loops from stored bytes to numbers: a module a family of encodings."""
