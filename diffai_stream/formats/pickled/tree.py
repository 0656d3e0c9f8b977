"""What a pickle holds, leaf by leaf: tensors and arrays under the names their program would give them, and scalars.

Nested mappings give one path component a level. A whole `torch.nn.Module` gives the names of its state dict, dots and all, as
one component. Every container is visited once, so values that refer to each other a thousand times cost no more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from diffai_stream.formats.inert import printable
from diffai_stream.formats.pickled.arrays import Array
from diffai_stream.formats.pickled.torch_values import Storage, Tensor, Wrapper
from diffai_stream.formats.pickled.values import Broken, Instance

Path = tuple[str, ...]
Scalar = str | int | float | bool
MAX_DEPTH = 100
MAX_SCALARS = 10_000
MAX_TEXT = 1000
_MAX_LISTED = 64  # of a list of scalars; longer ones are data, not settings
_MAX_NAME = 1000
_MAX_DEPTH_OF_ARRAYS = 64
_INVISIBLE = {"_content", "_val"}  # levels of omegaconf that its user does not see
_SKIPPED = {
    *("_metadata", "_parent", "_flags_cache", "_backward_hooks", "_forward_hooks"),
    *("param_shapes", "frozen_param_shapes", "shared_params", "buffer_names"),  # of DeepSpeed: shapes, no settings
}
_CONTAINERS = {dict, list, tuple, Instance, Array, Wrapper}
_OPAQUE = ("numpy.random.", "torch.device", "torch.Generator", "pathlib.", "datetime.")
_MODULE = ("_parameters", "_buffers", "_modules")


class Leaf(NamedTuple):
    """A tensor, an array, or what is left of one that makes no sense, and where in the tree it is."""

    path: Path
    value: Any


class Tree:
    """The leaves and scalars of a value, in order."""

    def __init__(self, root: object) -> None:
        self.leaves: list[Leaf] = []
        self.scalars: dict[Path, Scalar] = {}
        self.wrappers: dict[Path, Wrapper] = {}
        self.is_cut = False
        self._seen: set[int] = set()
        self._walk(root, (), 0)

    def _walk(self, value: Any, path: Path, depth: int) -> None:
        if isinstance(value, Storage):
            value = Tensor(value, value.first, (value.numel,), (1,), value.dtype)
        if isinstance(value, Tensor | Broken) or (isinstance(value, Array) and not value.is_objects):
            self.leaves.append(Leaf(path, value))
        elif isinstance(value, str | int | float):
            self._scalar(path, value)
        elif type(value) in _CONTAINERS:
            if id(value) in self._seen or _is_list_of_scalars(value):
                return
            if depth >= MAX_DEPTH:
                self.is_cut = True
                return
            self._seen.add(id(value))
            self._container(value, path, depth + 1)

    def _container(self, value: Any, path: Path, depth: int) -> None:
        if isinstance(value, Instance) and is_module(value):
            for name, inner in _of_module(value, "", depth, self._seen):
                self._walk(inner, (*path, name), depth)
            return
        if isinstance(value, Wrapper):
            self.wrappers[path] = value
        for name, inner in _children(value):
            self._walk(inner, path if name in _INVISIBLE else (*path, name), depth)

    def _scalar(self, path: Path, value: Scalar) -> None:
        if len(self.scalars) >= MAX_SCALARS:
            self.is_cut = True
        elif path:
            self.scalars[path] = printable(value[:MAX_TEXT]) if isinstance(value, str) else value


def _is_list_of_scalars(value: Any) -> bool:
    """Whether a container is a long list of text or numbers, which is data that no one compares here."""
    return type(value) in (list, tuple) and len(value) > _MAX_LISTED and isinstance(value[0], str | int | float)


def is_module(value: Instance) -> bool:
    """Whether it looks like a `torch.nn.Module`."""
    state = value.state
    return isinstance(state, dict) and all(isinstance(state.get(part), dict) for part in _MODULE)


def _of_module(module: Instance, prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Parameters, persistent buffers and submodules, as `state_dict()` orders and names them."""
    state = module.state
    volatile = state.get("_non_persistent_buffers_set")
    skipped = set(filter(_is_text, volatile)) if isinstance(volatile, list | tuple) else set()
    for part in _MODULE[:2]:
        for name, value in state[part].items():
            if isinstance(name, str) and value is not None and not (part == "_buffers" and name in skipped):
                yield prefix + name, value
    for name, value in state["_modules"].items():
        if isinstance(name, str) and isinstance(value, Instance) and id(value) not in seen and depth < MAX_DEPTH:
            seen.add(id(value))
            if is_module(value):
                yield from _of_module(value, f"{prefix}{name}.", depth + 1, seen)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _children(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return _named(value)
    if isinstance(value, Array):
        return _objects(value) if isinstance(value.data, list) else ()
    if isinstance(value, Wrapper):
        state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
        return _named(state) if isinstance(state, dict) else ()
    if isinstance(value, Instance):
        return _of_instance(value)
    return _numbered(value)


def _objects(array: Array) -> Iterator[tuple[str, Any]]:
    """The elements of an array of objects, each by its index: `2.0` in a matrix."""
    shape = array.shape if isinstance(array.shape, tuple) and all(type(size) is int for size in array.shape) else ()
    for number, value in enumerate(array.data):
        place, rest = list[str](), number
        for size in reversed(shape[-_MAX_DEPTH_OF_ARRAYS:]):
            place.append(str(rest % max(size, 1)))
            rest //= max(size, 1)
        yield ".".join(reversed(place)) or "0", value


def _of_instance(value: Instance) -> Iterator[tuple[str, Any]]:
    if value.path.startswith(_OPAQUE):
        return
    yield from _named(value.attributes())
    yield from _numbered(value.items or ())
    yield from _named(value.pairs or {})


def _named(pairs: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in pairs.items():
        if isinstance(key, str) and key not in _SKIPPED:
            yield printable(key[:_MAX_NAME]), value
        elif isinstance(key, int | float):
            yield str(key), value


def _numbered(items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Items by number; pairs that begin with a name, as the steps of a pipeline do, by that name."""
    for number, value in enumerate(items):
        if type(value) is tuple and 2 <= len(value) <= 3 and isinstance(value[0], str):
            yield printable(value[0][:_MAX_NAME]), value[1]
        else:
            yield str(number), value
