"""Bytes of files: where they lie, how they are mapped, whether they are still the same. Nothing about tensors."""
