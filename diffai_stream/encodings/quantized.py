"""Encodings whose codes need scales stored beside them; `formats/quantized` folds the stored tensors into entries of these.

`bits` are those of a code alone; what scales and zero points add shows in the stored bytes of an entry.
"""

from __future__ import annotations

from diffai_stream.encodings.base import DecodeKind, Encoding


def _row(name: str, bits: int, module: str, title: str) -> Encoding:
    target = f"diffai_stream.encodings.{module}:open_decoder"
    return Encoding(name, bits, DecodeKind.F32, "quantized", title=title, decoder=target)


DEQUANTIZED = {
    **{"I2": 2, "U2": 2, "I4": 4, "U4": 4, "I8": 8, "U8": 8, "I16": 16, "U16": 16, "I32": 32, "F4": 4},
    **{"F8_E4M3": 8, "F8_E4M3FNUZ": 8, "F8_E5M2": 8, "F8_E5M2FNUZ": 8},
}
"""What the operator takes, by the name of the plain encoding of the codes, and their bits."""

_FLOATS = ("E4M3", "E5M2", "E4M3FNUZ", "E5M2FNUZ")

QUANTIZED: tuple[Encoding, ...] = (
    *(_row(f"F8_{name}_SCALED", 8, "grid", f"{name} with scales per tensor, row or block") for name in _FLOATS),
    _row("MXFP8", 8, "grid", "8-bit floats, an exponent for 32"),
    _row("MXFP4", 4, "grid", "E2M1, an exponent for 32"),
    _row("NVFP4", 4, "grid", "E2M1, an E4M3 scale for 16, one over all"),
    _row("I8_SCALED", 8, "grid", "signed bytes with scales per tensor, row, group or block"),
    _row("I4_SCALED", 4, "grid", "signed nibbles with scales and zeros per group"),
    *(_row(f"I{bits}_PACKED", bits, "grid", f"compressed-tensors, {bits} bits packed into words") for bits in range(1, 9)),
    *(_row(f"GPTQ_I{bits}", bits, "gptq", f"GPTQ, {bits} bits") for bits in (2, 3, 4, 8)),
    _row("AWQ_I4", 4, "gptq", "AWQ, 4 bits"),
    _row("BNB_I8", 8, "grid", "bitsandbytes int8, a scale a row"),
    _row("BNB_NF4", 4, "blocks", "bitsandbytes NormalFloat, an absmax a block"),
    _row("BNB_FP4", 4, "blocks", "bitsandbytes fp4, an absmax a block"),
    *(_row(f"MLX_I{bits}", bits, "grid", f"MLX, {bits} bits, scale and bias per group") for bits in (2, 3, 4, 5, 6, 8)),
    _row("QINT8", 8, "affine", "torch qint8, a scale for the tensor or each channel"),
    _row("QUINT8", 8, "affine", "torch quint8, the same"),
    _row("QINT32", 32, "affine", "torch qint32, the same"),
    *(_row(f"DQ_{kind}", bits, "dequantize_linear", f"ONNX DequantizeLinear of {kind}") for kind, bits in DEQUANTIZED.items()),
    *(_row(f"NBITS_I{bits}", bits, "grid", f"ONNX MatMulNBits, {bits} bits per group") for bits in (2, 4, 8)),
    *(_row(f"HQQ_I{bits}", bits, "parts", f"HQQ, {bits} bits, scale and zero per group") for bits in (1, 2, 3, 4, 8)),
)
