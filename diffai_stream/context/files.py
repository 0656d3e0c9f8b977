"""Small files beside a checkpoint, read within bounds: JSON and YAML become plain values, never objects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from diffai_stream.context.base import Scalar
from diffai_stream.errors import FormatError
from diffai_stream.formats.inert import open_regular, read_exactly, read_json
from diffai_stream.storage.remote.mirror import local

MAX_CONFIG_NBYTES = 16 << 20
MAX_TOKENIZER_NBYTES = 256 << 20
MAX_YAML_NBYTES = 1 << 20
MAX_DEPTH = 8
MAX_SCALARS = 5000


def folder_of(path: str) -> str:
    """The directory whose files explain the checkpoint at `path`: the path itself, or the one it lies in."""
    path = local(path)
    return path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))


def json_beside(folder: str, name: str, limit: int = MAX_CONFIG_NBYTES) -> Mapping[str, Any] | None:
    """The JSON object of a file, None where there is none. Raises FormatError for one that cannot be read."""
    path = os.path.join(folder, name)
    return read_json(path, limit)[0] if os.path.isfile(path) else None


def yaml_beside(folder: str, name: str) -> Mapping[str, Any] | None:
    """The YAML mapping of a file, None where there is none. Raises FormatError for one that cannot be read.

    Tags are not resolved and aliases refused: they could name objects to build, or grow without bound.
    """
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    import yaml

    with open_regular(path) as (file, stamp):
        if stamp.nbytes > MAX_YAML_NBYTES:
            raise FormatError(f"{stamp.nbytes} bytes of YAML are more than the {MAX_YAML_NBYTES} that are plausible", path=path)
        raw = read_exactly(file, 0, stamp.nbytes, path)
    try:
        text = raw.decode("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise FormatError("a YAML file with aliases is not read", path=path)
        found = _load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"not readable YAML: {str(error).splitlines()[0][:100]}", path=path) from None
    return found if isinstance(found, Mapping) else None


def flattened(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Scalar]]:
    """(dotted name, scalar) of nested mappings, in their order; lists and what nests too deeply are left out."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, (str, int, float, bool)):
            yield name, value
        elif isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from flattened(value, f"{name}.", depth + 1)


def _load(text: str) -> object:
    """YAML text as scalars, lists and mappings; a tag counts for nothing, its node is read as what it is."""
    import yaml

    class PlainLoader(yaml.SafeLoader):
        pass

    def plain(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
        if isinstance(node, yaml.ScalarNode):
            return loader.construct_scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]

    PlainLoader.add_multi_constructor("", plain)
    return PlainLoader(text).get_single_data()
