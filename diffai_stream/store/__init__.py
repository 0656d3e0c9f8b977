"""Finished tensors kept on disk, to resume a run: a zarr v3 directory, committed batch by batch and checked before use."""
