"""From the value of a pickle to the contents of a checkpoint: entries by name and part, aliases, settings, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from diffai_stream.errors import TensorError
from diffai_stream.formats.base import TensorEntry
from diffai_stream.formats.inert import Notes, printable
from diffai_stream.formats.pickled.optimizer import is_parameter, parameter_names, renamed
from diffai_stream.formats.pickled.training import OPTIMIZER, Sorted, dotted, sort_leaves
from diffai_stream.formats.pickled.tree import Leaf, Path, Scalar, Tree
from diffai_stream.formats.pickled.values import Broken

Describe = Callable[[str, Any, str], list[TensorEntry]]


class Contents(NamedTuple):
    """What a checkpoint holds, as far as it can be told."""

    tensors: tuple[TensorEntry, ...]
    errors: tuple[TensorError, ...]
    aliases: Mapping[str, str]
    hyperparameters: Mapping[str, Scalar]


def collect(root: object, describe: Describe, notes: Notes) -> Contents:
    """The contents of a value; `describe(name, value, part)` gives the entries of a leaf or raises ValueError."""
    tree = Tree(root)
    if tree.is_cut:
        notes.add("cut_short", "values nested too deeply, or scalars beyond the first 10,000, were left out")
    for path, wrapper in tree.wrappers.items():
        message = f"{dotted(path)!r} is a {wrapper.kind}: the tensors that it wraps are compared, not what they stand for"
        notes.add("tensor_subclass", message, dotted(path))
    if not tree.leaves:
        notes.add("no_tensors", "it holds no tensors")
    leaves = _optimizers_named(root, tree.leaves)
    return contents_of(sort_leaves(leaves), describe, notes, _hyperparameters(root, tree.scalars))


def contents_of(found: list[Sorted], describe: Describe, notes: Notes, scalars: Mapping[str, Scalar]) -> Contents:
    """The contents that sorted leaves make: one that cannot be described is an error, one met before an alias."""
    tensors: dict[str, TensorEntry] = {}
    errors: list[TensorError] = []
    stored: dict[object, str] = {}
    aliases: dict[str, str] = {}
    for name, value, part in found:
        try:
            if isinstance(value, Broken):
                raise ValueError(value.reason)
            for entry in describe(name, value, part):
                if entry.name in tensors or entry.name in aliases:
                    raise ValueError("another tensor has this name already")
                kept = stored.setdefault(_identity(entry), entry.name) if entry.numel else entry.name
                if kept == entry.name:
                    tensors[entry.name] = entry
                else:
                    aliases[entry.name] = kept
        except ValueError as error:
            errors.append(TensorError(printable(str(error)), path=notes.path, tensor=name))
    return Contents(tuple(tensors.values()), tuple(errors), aliases, scalars)


def _identity(entry: TensorEntry) -> object:
    """Equal for entries that read the same bytes in the same way."""
    return entry.part, entry.shape, entry.encoding, tuple(entry.components.items())


def _optimizers(root: object) -> Iterator[tuple[Path, Path, dict[Any, Any]]]:
    """Each optimizer's state dict, its path, and the path it is told by: `optimizer`, with a number where there are several."""
    top = root if isinstance(root, dict) else {}
    for key in OPTIMIZER:
        value = top.get(key)
        several = list(enumerate(value)) if isinstance(value, list | tuple) else []
        if isinstance(value, dict) and "state" in value:
            yield (key,), ("optimizer",), value
        for number, one in several:
            if isinstance(one, dict):
                yield (key, str(number)), ("optimizer", str(number)) if len(several) > 1 else ("optimizer",), one


def _optimizers_named(root: object, leaves: list[Leaf]) -> list[Leaf]:
    """The leaves with optimizer state named by parameter, where its shapes tell which it is."""
    optimizers = list(_optimizers(root))
    if not optimizers:
        return leaves
    shapes = _parameters(leaves)
    for path, told, value in optimizers:
        names = parameter_names(value.get("state"), value.get("param_groups"), shapes)
        inside = [leaf._replace(path=leaf.path[len(path) :]) for leaf in leaves if leaf.path[: len(path)] == path]
        moved = [leaf._replace(path=told + leaf.path) for leaf in renamed(inside, names)]
        leaves = [leaf for leaf in leaves if leaf.path[: len(path)] != path] + moved
    return leaves


def _parameters(leaves: list[Leaf]) -> dict[str, tuple[int, ...]]:
    """Shapes of the trained weights by name, those that share a storage once."""
    shapes: dict[str, tuple[int, ...]] = {}
    seen: set[object] = set()
    for name, value, part in sort_leaves(leaves):
        if part == "weights" and is_parameter(name, value) and value[:4] not in seen:
            seen.add(value[:4])
            shapes[name] = value.shape
    return shapes


def _hyperparameters(root: object, scalars: Mapping[Path, Scalar]) -> dict[str, Scalar]:
    """Settings by dotted name; of the numbers within an optimizer's state only the first count of steps."""
    prefixes = [(path, told) for path, told, _ in _optimizers(root)]
    found: dict[str, Scalar] = {}
    for path, value in scalars.items():
        old, told = next(((old, told) for old, told in prefixes if path[: len(old)] == old), ((), ()))
        inner = path[len(old) :]
        if told and inner[0] == "state":
            if inner[-1] == "step":
                found.setdefault(dotted((*told, "step")), value)
        elif not (told and "params" in inner[2:3]):
            found[dotted((*told, *inner))] = value
    return found
