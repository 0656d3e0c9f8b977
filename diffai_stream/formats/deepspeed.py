"""Directories of DeepSpeed: `mp_rank_00_model_states.pt` has the weights, the files of the ranks have parts of the optimizer.

Layout (`deepspeed/runtime/engine.py`): `latest` names the folder of the last step; in it lies one file of model states for each
tensor-parallel rank, and one of optimizer state for each rank of ZeRO. Stage 3 cuts the weights themselves into flat partitions
that only `zero_to_fp32.py`, which DeepSpeed puts beside them, puts together; such directories are refused with that advice.
"""

from __future__ import annotations

import os
import re

from diffai_stream.errors import FormatError
from diffai_stream.formats import torch_files
from diffai_stream.formats.base import Checkpoint, Oddity
from diffai_stream.formats.inert import file_error, open_regular, read_exactly

_MODEL = re.compile(r"mp_rank_\d+_model_states\.pt")
_PARTITIONED = re.compile(r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt")
_STAGE = re.compile(r"layer_\d+-model_\d+-model_states\.pt")
_OPTIMIZER = re.compile(r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt")
_PATTERNS = (_MODEL, _PARTITIONED, _STAGE, _OPTIMIZER)
_MAX_NAME_NBYTES = 255
_ADVICE = "zero_to_fp32.py of that directory puts them together; compare what it writes"


def probe(path: str, head: bytes) -> bool:
    """Whether it is a directory with files of DeepSpeed, or one whose `latest` or `checkpoint` leads to such."""
    if head or not os.path.isdir(path):
        return False
    return any(any(pattern.fullmatch(name) for pattern in _PATTERNS) for name in _names(_step(path)))


def index(path: str) -> Checkpoint:
    """The weights of the last step. Raises FormatError where they are cut into partitions."""
    directory = _step(path)
    names = _names(directory)
    models = [name for name in names if _MODEL.fullmatch(name)]
    if len(models) != 1 or any(_STAGE.fullmatch(name) for name in names):
        raise _refused(names, models, directory)
    found = torch_files.index(os.path.join(directory, models[0]))
    if not found.tensors and not found.errors:
        raise FormatError(f"its model states hold no weights, they are partitioned: {_ADVICE}", path=directory)
    parts = sum(_OPTIMIZER.fullmatch(name) is not None for name in names)
    oddities = found.oddities
    if parts:
        message = f"the optimizer state lies in {parts} flat partitions, which are not compared: {_ADVICE}"
        oddities = (*oddities, Oddity("partitioned_optimizer", message, directory))
    return found._replace(path=path, format="deepspeed", container="directory", oddities=oddities)


def _refused(names: list[str], models: list[str], directory: str) -> FormatError:
    partitioned = sum(_PARTITIONED.fullmatch(name) is not None for name in names)
    if any(_STAGE.fullmatch(name) for name in names):
        return FormatError("the weights are cut into stages of a pipeline, which are not put together here", path=directory)
    if models:
        message = f"the weights are cut over {len(models)} tensor-parallel ranks, which are not put together here"
        return FormatError(message, path=directory)
    if partitioned:
        return FormatError(f"the weights are cut into {partitioned} flat partitions (ZeRO stage 3): {_ADVICE}", path=directory)
    return FormatError("optimizer partitions of DeepSpeed without the model states beside them", path=directory)


def _step(path: str) -> str:
    """The directory with the files: the one that `latest` names, Lightning's `checkpoint`, or the path itself."""
    for candidate in (path, os.path.join(path, "checkpoint")):
        latest = os.path.join(candidate, "latest")
        if os.path.isfile(latest):
            with open_regular(latest) as (file, stamp):
                text = read_exactly(file, 0, min(stamp.nbytes, _MAX_NAME_NBYTES), latest)
            name = text.decode("utf-8", "replace").strip()
            if name and os.path.basename(name) == name and "\0" not in name and os.path.isdir(os.path.join(candidate, name)):
                return os.path.join(candidate, name)
    inner = os.path.join(path, "checkpoint")
    return inner if os.path.isdir(inner) and not any(_MODEL.fullmatch(name) for name in _names(path)) else path


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        raise file_error(directory, error) from None
