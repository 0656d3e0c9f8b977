"""Quantized layouts: the stored tensors of one weight folded into one logical tensor, a file a family of layouts."""
