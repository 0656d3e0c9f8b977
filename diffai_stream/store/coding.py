"""Finished tensors as JSON and arrays, and back: nothing that could run when it is read."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffai_stream.statistics.finishing import Finished, joined
from diffai_stream.statistics.scanner import Runs
from diffai_stream.store.zarr_files import DamagedError, split

Extras = tuple[dict[str, Any], ...]  # columns of the other statistics, in the order they were asked for


class Kept(NamedTuple):
    """Finished tensors side by side, and the columns of the other statistics of each."""

    finished: Finished
    extras: tuple[Extras, ...]


class Uncodable(TypeError):
    """A value that has no place in JSON and arrays."""


def encode(parts: Sequence[Finished], extras: Sequence[Extras]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """The tensors as what is told about them and arrays. Raises Uncodable for columns that are neither numbers nor arrays."""
    finished = joined(parts)
    arrays = [finished.rows, finished.coarse_ends, *(array for run in finished.coarse for array in run)]
    arrays += finished.columns.values()
    told = [[[_plain(name, arrays), _plain(columns[name], arrays)] for columns in one for name in columns] for one in extras]
    lengths = [[len(columns) for columns in one] for one in extras]
    layout = [[array.dtype.str, list(array.shape)] for array in arrays]
    return {"columns": list(finished.columns), "extras": told, "lengths": lengths, "arrays": layout}, arrays


def decode(told: dict[str, Any], data: NDArray[np.uint8]) -> Kept:
    """What `encode` was given. Raises DamagedError when it cannot be that."""
    try:
        arrays = split(data, told["arrays"])
        rows, ends, *rest = arrays
        runs = [Runs(rest[2 * view], rest[2 * view + 1]) for view in range(3)]
        columns = dict(zip(told["columns"], rest[6:], strict=False))
        extras = [_extras(one, lengths, arrays) for one, lengths in zip(told["extras"], told["lengths"], strict=True)]
    except (LookupError, ValueError, TypeError) as error:
        raise DamagedError("its parts do not fit together") from error
    return Kept(Finished(rows, (runs[0], runs[1], runs[2]), ends, columns), tuple(extras))


def _extras(told: list[Any], lengths: list[int], arrays: Sequence[NDArray[Any]]) -> Extras:
    items = iter(told)
    return tuple({_value(name, arrays): _value(value, arrays) for name, value in _some(items, count)} for count in lengths)


def _some(items: Any, count: int) -> list[Any]:
    return [next(items) for _ in range(count)]


def _plain(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """A value as JSON; what JSON cannot hold is an object that says what it is."""
    if value is None or isinstance(value, bool | str) or (type(value) is float and isfinite(value)):
        return value
    if type(value) is int and abs(value) < 1 << 53:
        return value
    if type(value) is float:
        return {"float": repr(value)}
    if type(value) is int:
        return {"int": str(value)}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        arrays.append(np.asarray(value))
        return {"array" if isinstance(value, np.ndarray) else "scalar": len(arrays) - 1}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_plain(item, arrays) for item in value]}
    if type(value) is dict:
        return {"dict": [[_plain(key, arrays), _plain(item, arrays)] for key, item in value.items()]}
    raise Uncodable(f"a {type(value).__name__} cannot be kept")


def _value(told: Any, arrays: Sequence[NDArray[Any]]) -> Any:
    if not isinstance(told, dict):
        return told
    ((kind, inside),) = told.items()
    if kind in ("array", "scalar"):
        return arrays[inside] if kind == "array" else arrays[inside][()]
    if kind in ("float", "int"):
        return float(inside) if kind == "float" else int(inside)
    if kind == "dict":
        return {_value(key, arrays): _value(item, arrays) for key, item in inside}
    items = [_value(item, arrays) for item in inside]
    return items if kind == "list" else tuple(items)
