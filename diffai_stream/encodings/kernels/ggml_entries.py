"""The entry points of the loops over ggml blocks: uint8[blocks, bytes], float32[blocks, elements], and the values of codes."""

from __future__ import annotations

import numpy as np

from diffai_stream.encodings.kernels import ggml
from diffai_stream.jit import matrix, vector

u1, f4 = np.uint8, np.float32


def decode_q1_0(b):
    """Q1_0: raw, out."""
    ggml.q1_0(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q4_0(b):
    """Q4_0: raw, out."""
    ggml.q4_0(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q4_1(b):
    """Q4_1: raw, out."""
    ggml.q4_1(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q5_0(b):
    """Q5_0: raw, out."""
    ggml.q5_0(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q5_1(b):
    """Q5_1: raw, out."""
    ggml.q5_1(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q8_0(b):
    """Q8_0: raw, out."""
    ggml.q8_0(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q2_k(b):
    """Q2_K: raw, out."""
    ggml.q2_k(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q3_k(b):
    """Q3_K: raw, out."""
    ggml.q3_k(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q4_k(b):
    """Q4_K: raw, out."""
    ggml.q4_k(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q5_k(b):
    """Q5_K: raw, out."""
    ggml.q5_k(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_q6_k(b):
    """Q6_K: raw, out."""
    ggml.q6_k(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_tq1_0(b):
    """TQ1_0: raw, out."""
    ggml.tq1_0(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_tq2_0(b):
    """TQ2_0: raw, out."""
    ggml.tq2_0(matrix(b, 0, u1), matrix(b, 1, f4))


def decode_iq4_nl(b):
    """IQ4_NL: raw, out, values of codes."""
    ggml.iq4_nl(matrix(b, 0, u1), matrix(b, 1, f4), vector(b, 2, f4))


def decode_iq4_xs(b):
    """IQ4_XS: raw, out, values of codes."""
    ggml.iq4_xs(matrix(b, 0, u1), matrix(b, 1, f4), vector(b, 2, f4))


def decode_mxfp4(b):
    """MXFP4: raw, out, values of codes and scales."""
    ggml.mxfp4(matrix(b, 0, u1), matrix(b, 1, f4), vector(b, 2, f4))


def decode_nvfp4(b):
    """NVFP4: raw, out, values of codes and scales."""
    ggml.nvfp4(matrix(b, 0, u1), matrix(b, 1, f4), vector(b, 2, f4))
