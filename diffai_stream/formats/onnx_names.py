"""Names of weights where an exporter made some up: taken from the node that uses the weight.

torch.onnx folds the transpose of a linear layer, or a batch norm into a convolution, and calls the result `onnx::MatMul_123`;
the node still has the path of its module, `/model/layers.0/self_attn/q_proj/MatMul`. onnxruntime's model builder puts the
operator into the name: `layers.0.attn.q_proj.MatMul.weight`. Shapes stay as they are stored: alignment finds a transpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from diffai_stream.formats.onnx_graph import Node

SUFFIX = re.compile(r"_quantized$|(?:_DQ)?_Q\d+G?$")
"""What the quantizers of onnxruntime append to the name of a weight."""
_DEQUANTIZED = "_DequantizeLinear_Output"
_MADE_UP = re.compile(r"onnx::\w+_\d+|_?\d+|(?:val|const_fold_opt_)_\d+")
_OPERATOR = re.compile(r"\.(?:MatMul|Gemm|Add|MatMulNBits)\.(weight|bias)")
_INPUTS = {
    **{op: {1: "weight"} for op in ("MatMul", "MatMulNBits", "MatMulBnb4")},
    **{op: {1: "weight", 2: "bias"} for op in ("Gemm", "Conv", "ConvTranspose")},
    **{op: {1: "W", 2: "R", 3: "B"} for op in ("LSTM", "GRU", "RNN")},
}
OPS = frozenset(_INPUTS)


def names_by_use(nodes: Iterable[Node]) -> dict[str, str]:
    """Better names for the made-up ones: those of the modules whose nodes use them."""
    found: dict[str, str] = {}
    for node in nodes:
        module = _module(node.name)
        for place, leaf in _INPUTS.get(node.op, {}).items():
            name = plain_input(node.inputs[place]) if place < len(node.inputs) else ""
            if module and name not in found and _MADE_UP.fullmatch(name):
                found[name] = f"{module}.{leaf}"
    return found


def plain_input(name: str) -> str:
    """The name of a weight before it was quantized, by that of the codes or of what was dequantized from them."""
    return SUFFIX.sub("", name.removesuffix(_DEQUANTIZED))


def plain_name(name: str) -> str:
    """The name without the operator that a model builder put before its last word."""
    return _OPERATOR.sub(r".\1", name)


def _module(path: str) -> str:
    """`model.layers.0.q_proj` for `/model/layers.0/q_proj/MatMul`; "" for a node without a path.

    A part that begins with the one before is a member of a sequence, whose name holds that of the sequence.
    """
    parts: list[str] = []
    for part in path.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts) if path.startswith("/") else ""
