"""The rows of every family: which endings of names it looks at, in the order in which they are asked."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, Protocol, cast

from diffai_stream.formats.quantized.base import Folded, Found
from diffai_stream.formats.quantized.opaque import NAMES as OPAQUE


class Family(Protocol):
    """A module of this package with one function."""

    def fold(self, found: Found) -> Folded | None:
        """The logical tensor, None when the stored tensor is not of this family. Raises Refused when it does not fit."""


class FamilyRow(NamedTuple):
    """One family: `triggers` are endings of the names of its telling tensors; `module` is imported when one is met."""

    name: str
    title: str
    triggers: tuple[str, ...]

    def load(self) -> Family:
        """The module of the family."""
        return cast(Family, import_module(f"diffai_stream.formats.quantized.{self.name}"))


FAMILIES: tuple[FamilyRow, ...] = (
    FamilyRow("gptq", "GPTQ of 2, 3, 4 and 8 bits, in any order of groups, v1 and v2", (".qweight",)),
    FamilyRow("awq", "AWQ in the layouts gemm and gemv", (".qweight",)),
    FamilyRow("packed", "compressed-tensors pack-quantized, 1 to 8 bits, dense or padded", ("_packed",)),
    FamilyRow(
        "fp4",
        "NVFP4 and MXFP4: compressed-tensors, modelopt, gpt-oss, DeepSeek V4",
        ("_packed", "_scale_2", "_blocks", "_scale", ".scale"),
    ),
    FamilyRow("fp8", "8-bit floats with scales per tensor, row or block", ("_scale_inv", "_scale", ".scale_weight", ".scale")),
    FamilyRow("int8", "compressed-tensors int-quantized, bitsandbytes int8", ("_scale", ".SCB")),
    FamilyRow("bitsandbytes", "bitsandbytes nf4 and fp4, with double quantization or without", (".absmax",)),
    FamilyRow("mlx", "MLX: affine of 2 to 8 bits, mxfp4, mxfp8, nvfp4", (".scales",)),
    FamilyRow("hqq", "HQQ of 1, 2, 3, 4 and 8 bits along either axis", (".W_q",)),
    FamilyRow("torchao", "torchao: Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, Int4Tensor", ("_qdata",)),
    FamilyRow("opaque", "named, not decoded: EXL2, EXL3, AQLM, QuIP#, VPTQ, SpQR, Marlin, sparse bitmasks", tuple(OPAQUE)),
)
