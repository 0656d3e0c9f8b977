"""Tied weights: two names for one stored tensor.

A writer of Hugging Face files stores a shared tensor once. `huggingface_hub` (`serialization/_torch.py`) then notes the
names it left out in the file's metadata as `{dropped: kept}`; `transformers` only sets `tie_word_embeddings` in `config.json`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Oddity
from diffai_stream.formats.inert import read_json
from diffai_stream.storage.extent import FileStamp

_CONFIG_LIMIT = 16_000_000
_HEADS = (
    ("lm_head.weight", "model.embed_tokens.weight"),
    ("lm_head.weight", "model.language_model.embed_tokens.weight"),
    ("lm_head.weight", "transformer.wte.weight"),
    ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"),
)


def tied_by_metadata(metadata: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """dropped name -> kept name, where the metadata says so and only the kept one is stored."""
    return {dropped: kept for dropped, kept in metadata.items() if dropped not in names and kept in names}


def tied_by_config(directory: str, names: Collection[str]) -> tuple[dict[str, str], tuple[Oddity, ...], tuple[FileStamp, ...]]:
    """The output layer that `config.json` declares to be the embedding; a config that cannot be read is an oddity."""
    path = os.path.join(directory, "config.json")
    if not os.path.lexists(path):
        return {}, (), ()
    try:
        config, stamp = read_json(path, _CONFIG_LIMIT)
    except FormatError as error:
        return {}, (Oddity("broken_config", f"config.json was not used: {error.message}", path),), ()
    return _tied_head(config, names), (), (stamp,)


def _tied_head(config: Mapping[str, object], names: Collection[str]) -> dict[str, str]:
    inner = config.get("text_config")
    sources = (config, inner) if isinstance(inner, dict) else (config,)
    if not any(source.get("tie_word_embeddings") is True for source in sources):
        return {}
    for head, embedding in _HEADS:
        if head in names:
            return {}
        if embedding in names:
            return {head: embedding}
    return {}
