"""The context of one checkpoint: plain values, each with the file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diffai_stream.formats.base import Oddity

Scalar = str | int | float | bool
NESTED = ("text_config", "language_config", "llm_config", "thinker_config", "decoder")


class Sourced(NamedTuple):
    """A hyper-parameter and the file, or the place in the checkpoint, that tells it."""

    value: Scalar
    source: str


class HistoryPoint(NamedTuple):
    """One line of a training log; what it does not tell is None."""

    step: int
    epoch: float | None
    loss: float | None
    eval_loss: float | None
    learning_rate: float | None


class Tokenizer(NamedTuple):
    """The texts of a tokenizer by token number (None where a number is unused), and the file they are from."""

    tokens: Sequence[str | None]
    source: str

    def text(self, token: int) -> str | None:
        """The text of a token; None when there is no such token."""
        return self.tokens[token] if 0 <= token < len(self.tokens) else None


class Context(NamedTuple):
    """Everything found beside one checkpoint.

    `config` and `generation_config` as their files hold them; `hyperparameters` dotted name -> value from all files and from
    the checkpoint itself; `history` ordered by step; `step` the training step of this checkpoint; `oddities` what was there
    and could not be used.
    """

    config: Mapping[str, Any] = {}
    generation_config: Mapping[str, Any] = {}
    model_index: Mapping[str, Any] = {}
    hyperparameters: Mapping[str, Sourced] = {}
    history: tuple[HistoryPoint, ...] = ()
    step: int | None = None
    tokenizer: Tokenizer | None = None
    files: tuple[str, ...] = ()
    oddities: tuple[Oddity, ...] = ()

    def number(self, *names: str) -> int | None:
        """The first of these fields of the configuration that holds a whole number, looked for in nested ones too."""
        for config in (self.config, *(self.config.get(name) for name in NESTED)):
            if isinstance(config, Mapping):
                for name in names:
                    value = config.get(name)
                    if isinstance(value, int) and not isinstance(value, bool):
                        return value
        return None
