"""A plan to merged states, streaming: scan a batch, merge along the tree, one executor a file."""
