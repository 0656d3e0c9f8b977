"""Collects the context of a checkpoint: every file is optional, one that cannot be read is an oddity and never an error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from diffai_stream.context.base import Context, Scalar, Sourced
from diffai_stream.context.files import MAX_SCALARS, flattened, folder_of, json_beside, yaml_beside
from diffai_stream.context.tokenizer import tokenizer_beside, tokenizer_within
from diffai_stream.context.training import history_of, step_of
from diffai_stream.errors import DiffaiError
from diffai_stream.formats.base import Checkpoint, Oddity
from diffai_stream.storage.remote.mirror import told

T = TypeVar("T")
TRAINING_ARGUMENTS = "training_args.bin"


class _Reader:
    """Reads optional files of one folder, noting what was found and what failed."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files: list[str] = []
        self.oddities: list[Oddity] = []

    def take(self, name: str, read: Callable[[str, str], T | None]) -> T | None:
        """What `read` makes of the file of this name; None where there is none or it cannot be read."""
        try:
            found = read(self.folder, name)
        except DiffaiError as error:
            path = told(error.path or os.path.join(self.folder, name))
            self.oddities.append(Oddity("unreadable_context", told(error.message), path))
            return None
        if found is not None:
            self.files.append(name)
        return found


def context_of(checkpoint: Checkpoint, with_tokenizer: bool = True) -> Context:
    """Everything that lies beside a checkpoint, and the hyper-parameters that it carries itself. Never raises for bad files."""
    reader = _Reader(folder_of(checkpoint.path))
    config = reader.take("config.json", json_beside) or {}
    generation = reader.take("generation_config.json", json_beside) or {}
    model_index = reader.take("model_index.json", json_beside) or {}
    state = reader.take("trainer_state.json", json_beside) or {}
    hparams = reader.take("hparams.yaml", yaml_beside) or {}
    arguments = reader.take(TRAINING_ARGUMENTS, _training_arguments) or {}
    tokenizer = reader.take("tokenizer", lambda folder, _: tokenizer_beside(folder)) if with_tokenizer else None
    if tokenizer is None and with_tokenizer:
        tokenizer = reader.take("the vocabulary of the checkpoint", lambda *_: tokenizer_within(checkpoint))
    sources: dict[str, Mapping[str, Any]] = {
        "config.json": config,
        "generation_config.json": generation,
        "hparams.yaml": hparams,
        TRAINING_ARGUMENTS: arguments,
        "the checkpoint": dict(checkpoint.hyperparameters),
    }
    return Context(
        config,
        generation,
        model_index,
        dict(_merged(sources)),
        history_of(state),
        step_of(checkpoint.path, state, checkpoint.hyperparameters),
        tokenizer,
        tuple(reader.files),
        tuple(reader.oddities),
    )


def _merged(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Sourced]]:
    """Hyper-parameters of all sources; of equal names the last source counts."""
    for source, values in sources.items():
        for number, (name, value) in enumerate(flattened(values)):
            if number >= MAX_SCALARS:
                break
            yield name, Sourced(value, source)


def _training_arguments(folder: str, name: str) -> Mapping[str, Scalar] | None:
    """The plain values of a pickled TrainingArguments, read by the reader that runs nothing."""
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    from diffai_stream.formats.catalogue import open_checkpoint

    return open_checkpoint(path).hyperparameters
