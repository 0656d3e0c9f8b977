"""Token texts by number: what makes a row of an embedding readable.

They come from `tokenizer.json`, `vocab.json` or `vocab.txt` beside a checkpoint, or from the metadata of a GGUF file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from diffai_stream.context.base import Tokenizer
from diffai_stream.context.files import MAX_TOKENIZER_NBYTES, json_beside
from diffai_stream.errors import FormatError
from diffai_stream.formats.base import Checkpoint
from diffai_stream.formats.inert import open_regular, read_exactly

MAX_TOKENS = 4_000_000


def tokenizer_beside(folder: str) -> Tokenizer | None:
    """The tokenizer of a directory; None where there is none. Raises FormatError for one that cannot be read."""
    found = json_beside(folder, "tokenizer.json", MAX_TOKENIZER_NBYTES)
    if found is not None:
        return Tokenizer(_of_tokenizer_json(found), "tokenizer.json")
    found = json_beside(folder, "vocab.json", MAX_TOKENIZER_NBYTES)
    if found is not None:
        return Tokenizer(_numbered(found.items()), "vocab.json")
    lines = _lines(os.path.join(folder, "vocab.txt"))
    return Tokenizer(lines, "vocab.txt") if lines is not None else None


def tokenizer_within(checkpoint: Checkpoint) -> Tokenizer | None:
    """The vocabulary that a GGUF file carries itself, the first part of a split one; None in other formats."""
    key = "tokenizer.ggml.tokens"
    if checkpoint.format != "gguf" or key not in checkpoint.metadata:
        return None
    from diffai_stream.formats.gguf_header import read_texts

    texts = read_texts(next(iter(checkpoint.stamps)), key)
    return Tokenizer(texts[:MAX_TOKENS], key) if texts else None


def _of_tokenizer_json(found: Mapping[str, Any]) -> list[str | None]:
    """`model.vocab` maps text to number (BPE, WordPiece) or lists (text, score) (Unigram); added tokens carry numbers."""
    model = found.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    pairs: list[tuple[Any, Any]] = []
    if isinstance(vocabulary, Mapping):
        pairs += vocabulary.items()
    elif isinstance(vocabulary, list):
        pairs += [(row[0], number) for number, row in enumerate(vocabulary) if isinstance(row, list) and row]
    added = found.get("added_tokens")
    for row in added if isinstance(added, list) else ():
        if isinstance(row, Mapping):
            pairs.append((row.get("content"), row.get("id")))
    return _numbered(pairs)


def _numbered(pairs: Iterable[tuple[Any, Any]]) -> list[str | None]:
    """Texts by number; what is no (text, plausible number) is left out."""
    sound = [(text, n) for text, n in pairs if isinstance(text, str) and type(n) is int and 0 <= n < MAX_TOKENS]
    tokens: list[str | None] = [None] * (max((number for _, number in sound), default=-1) + 1)
    for text, number in sound:
        tokens[number] = text
    return tokens


def _lines(path: str) -> list[str | None] | None:
    if not os.path.isfile(path):
        return None
    with open_regular(path) as (file, stamp):
        if stamp.nbytes > MAX_TOKENIZER_NBYTES:
            raise FormatError(f"{stamp.nbytes} bytes are too many for a vocabulary", path=path)
        text = read_exactly(file, 0, stamp.nbytes, path).decode("utf-8", "replace")
    return list(text.split("\n")[: MAX_TOKENS + 1][:-1] if text.endswith("\n") else text.split("\n")[:MAX_TOKENS])
