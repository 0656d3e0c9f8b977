"""What the `.metadata` of torch.distributed.checkpoint says: tensors, the boxes they were cut into, where each was written."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

from diffai_stream.formats.inert import element_count
from diffai_stream.formats.pickled.torch_values import ENCODINGS_OF, dtype_name
from diffai_stream.formats.pickled.tree import Path
from diffai_stream.formats.pickled.values import Global, Instance

Sizes = tuple[int, ...]


class Piece(NamedTuple):
    """A box of a tensor, or an object: the bytes of a little file of torch within a file of the directory."""

    origin: Sizes
    sizes: Sizes
    file: str
    offset: int
    nbytes: int
    transforms: str = ""


class Stored(NamedTuple):
    """A tensor as the metadata declare it."""

    shape: Sizes
    dtype: str
    pieces: tuple[Piece, ...]


class Metadata(NamedTuple):
    """All of it by path in the state dict; `flaws` are what makes no sense, by path too."""

    tensors: dict[Path, Stored]
    objects: dict[Path, Piece]
    flaws: dict[Path, str]


def read_metadata(root: object) -> Metadata:
    """The metadata that a pickled `Metadata` object holds. Raises ValueError when it is none."""
    fields = root.attributes() if isinstance(root, Instance) and root.path.endswith(".Metadata") else {}
    declared, placed = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(declared, dict) or not isinstance(placed, dict):
        raise ValueError("it does not hold the metadata of a distributed checkpoint")
    paths, places = fields.get("planner_data"), _places(placed)
    found = Metadata({}, {}, {})
    for name, value in declared.items():
        if not isinstance(name, str):
            continue
        path = _path(name, paths.get(name) if isinstance(paths, dict) else None)
        try:
            if isinstance(value, Instance) and value.path.endswith(".BytesStorageMetadata"):
                if (name, ()) in places:
                    found.objects[path] = places[name, ()]
            else:
                found.tensors[path] = _stored(name, value, places)
        except ValueError as error:
            found.flaws[path] = str(error)
    return found


def _path(name: str, parts: Any) -> Path:
    """The path of a name in the state dict, whose keys may hold dots themselves."""
    if isinstance(parts, tuple) and parts and all(isinstance(part, str | int) for part in parts):
        return tuple(str(part) for part in parts)
    return (name,)


def _places(placed: dict[Any, Any]) -> dict[tuple[str, Sizes], Piece]:
    """Where each box was written, by name and origin; what makes no sense is left out, and so not found later."""
    found: dict[tuple[str, Sizes], Piece] = {}
    for key, value in placed.items():
        index = key.attributes() if isinstance(key, Instance) else {}
        info = value.attributes() if isinstance(value, Instance) else {}
        name, file, span = index.get("fqn"), info.get("relative_path"), (info.get("offset"), info.get("length"))
        origin = index.get("offset") or ()
        if not (isinstance(name, str) and isinstance(file, str) and _are_sizes(span) and _are_sizes(origin)):
            continue
        transforms = info.get("transform_descriptors")
        text = ", ".join(str(item) for item in transforms) if isinstance(transforms, list | tuple) else ""
        found.setdefault((name, origin), Piece(origin, (), file, span[0], span[1], text[:80]))
    return found


def _are_sizes(values: Any) -> TypeGuard[Sizes]:
    return isinstance(values, tuple) and all(type(value) is int and value >= 0 for value in values)


def _stored(name: str, value: Any, places: dict[tuple[str, Sizes], Piece]) -> Stored:
    fields = value.attributes() if isinstance(value, Instance) else {}
    shape, chunks = fields.get("size"), fields.get("chunks")
    if not _are_sizes(shape) or not isinstance(chunks, list):
        raise ValueError("its entry in the metadata has no size or no chunks")
    element_count(shape)
    pieces: dict[Sizes, Piece] = {}
    for chunk in chunks:
        box = chunk.attributes() if isinstance(chunk, Instance) else {}
        origin, sizes = box.get("offsets"), box.get("sizes")
        if not _are_sizes(origin) or not _are_sizes(sizes) or not len(origin) == len(sizes) == len(shape):
            raise ValueError("a chunk of it has no offsets or sizes that make sense")
        if any(start + size > limit for start, size, limit in zip(origin, sizes, shape, strict=True)):
            raise ValueError(f"a chunk of it at {origin} reaches beyond its shape {shape}")
        if (name, origin) not in places:
            raise ValueError(f"the metadata do not say where its chunk at {origin} was written")
        pieces.setdefault(origin, places[name, origin]._replace(sizes=sizes))
    if sum(element_count(piece.sizes) for piece in pieces.values()) != element_count(shape):
        raise ValueError(f"its {len(pieces)} chunks do not make up its shape {shape}")
    dtype = _dtype(fields.get("properties"))
    if not pieces and dtype not in ENCODINGS_OF:
        raise ValueError("it has no chunks, and its dtype is not known")
    return Stored(shape, dtype, tuple(pieces[origin] for origin in sorted(pieces)))


def _dtype(properties: Any) -> str:
    """The dtype of TensorProperties, whose state is a tuple that begins with it, or a mapping in older versions."""
    state = properties.state if isinstance(properties, Instance) else None
    first = state[0] if isinstance(state, tuple) and state else state.get("dtype") if isinstance(state, dict) else None
    return dtype_name(first) if isinstance(first, Global) else ""
