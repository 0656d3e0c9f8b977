"""Attention, head by head: how far heads moved, which of them matter, and how far what they look at changed."""
