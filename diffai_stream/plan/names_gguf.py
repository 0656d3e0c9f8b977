"""Names of GGUF that mean something else in some architectures than they do in Llama.

One set of words serves all architectures there (`constants.py` and `tensor_mapping.py` of gguf-py): Gemma normalizes after
attention and before the MLP, so its `ffn_norm` is not Llama's `post_attention_layernorm`; Phi-3 stores gate and up in `ffn_up`.
What the converter does to the values is no matter of names: `resolve.py` tries the layouts and believes the samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from diffai_stream.formats.base import Checkpoint

_MODULE = re.compile(r"(?:blk\.\d+\.)?(\w+)\.(weight|bias)")
_ARCHITECTURE = "general.architecture"


class _Meaning(NamedTuple):
    """`module` has this role in these architectures; `beside` names a module that must be there too."""

    architectures: tuple[str, ...]
    module: str
    role: str
    beside: str = ""


_MEANINGS = (
    _Meaning(("gemma2", "gemma3", "gemma3n", "gemma4", "gemma-embedding"), "ffn_norm", "norm.pre_mlp"),
    _Meaning(("phi3", "glm4"), "ffn_up", "mlp.gate_up_proj"),
    _Meaning(("falcon",), "attn_norm_2", "norm.input"),
    _Meaning(("falcon",), "attn_norm", "norm.post_attention", beside="attn_norm_2"),
)


def roles_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Module -> role, where the architecture that a GGUF checkpoint names has another one than the names alone tell."""
    architecture = checkpoint.metadata.get(_ARCHITECTURE)
    rows = [row for row in _MEANINGS if architecture in row.architectures]
    if not any(row.beside for row in rows):
        return {row.module: row.role for row in rows}
    there = {found[1] for entry in checkpoint.tensors if (found := _MODULE.fullmatch(entry.name))}
    return {row.module: row.role for row in rows if not row.beside or row.beside in there}


def role_of(name: str, roles: Mapping[str, str]) -> str | None:
    """The role of a tensor by the table of its checkpoint; None where its name tells."""
    found = _MODULE.fullmatch(name) if roles else None
    role = roles.get(found[1]) if found else None
    return role if role is None or (found and found[2] == "weight") else f"{role}.bias"
