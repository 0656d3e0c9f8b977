"""Encodings whose codes need scales stored beside them; `formats/quantized` folds the stored tensors into entries of these.

`bits` are those of a code alone; what scales and zero points add shows in the stored bytes of an entry.
"""

from __future__ import annotations

from diffai_stream.encodings.base import DecodeKind, Encoding

INTEGER_BITS = (1, 2, 3, 4, 5, 6, 7, 8)


def _row(name: str, bits: int, module: str, title: str) -> Encoding:
    target = f"diffai_stream.encodings.{module}:open_decoder"
    return Encoding(name, bits, DecodeKind.F32, "quantized", title=title, decoder=target)


QUANTIZED: tuple[Encoding, ...] = (
    *(
        _row(f"F8_{name}_SCALED", 8, "grid", f"{name} with scales per tensor, row or block")
        for name in ("E4M3", "E5M2", "E4M3FNUZ", "E5M2FNUZ")
    ),
)
