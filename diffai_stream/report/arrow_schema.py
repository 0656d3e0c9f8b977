"""The records as one Arrow table: its schema is derived from that of the records, so that a new field needs no code here.

Every row is a record and every column a field of some record type; `type` tells them apart and what a record lacks is null.
Nested fields are structs and lists. What has no fixed shape (the options in the header), or different types in different
records, is JSON text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from diffai_stream.errors import MissingExtraError
from diffai_stream.report.ndjson import encode
from diffai_stream.report.plain import encodable
from diffai_stream.report.records import SCHEMA_VERSION, Record
from diffai_stream.report.schema import Schema, build_schema

Shape = Any
"""`int`, `float`, `bool`, `str`, `None` (JSON text), a list holding one shape, or a dict of the shapes of fields.

An empty dict is an object of free form, JSON text too."""

_INT64: Final = range(-(1 << 63), 1 << 63)
_SCALARS: Final[Mapping[str, Shape]] = {"boolean": bool, "integer": int, "number": float, "string": str}


def pyarrow() -> Any:
    """The library; MissingExtraError with what to install when there is none."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("arrow and parquet need pyarrow; pip install 'diffai-stream[arrow]'") from error
    return pyarrow


def record_shape() -> dict[str, Shape]:
    """The fields of all record types, those of the analyses known so far included."""
    from diffai_stream.analyses.catalogue import ANALYSES

    return _record_shape(tuple(ANALYSES))


@cache
def _record_shape(names: tuple[str, ...]) -> dict[str, Shape]:
    from diffai_stream.analyses.catalogue import ANALYSES

    schema = build_schema({name: ANALYSES[name].fields for name in names})
    shape: Shape = {}
    for alternative in schema["oneOf"]:
        shape = _merged(shape, _shape(alternative, schema["$defs"]))
    return dict(shape)


def _shape(schema: Schema, definitions: Mapping[str, Schema]) -> Shape:
    if "$ref" in schema:
        return _shape(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema or "enum" in schema:
        kinds = {type(value) for value in schema.get("enum", [schema.get("const")]) if value is not None}
        return kinds.pop() if len(kinds) == 1 else None
    if "anyOf" in schema:
        shapes = [_shape(item, definitions) for item in schema["anyOf"] if item != {"type": "null"}]
        return shapes[0] if len(shapes) == 1 else None
    kind = schema.get("type")
    names = [name for name in (kind if isinstance(kind, list) else [kind]) if name != "null"]
    if set(names) == {"integer", "number"}:
        return float
    if names == ["array"]:
        return [_shape(schema["items"], definitions)] if "items" in schema else None
    if names == ["object"]:
        return {name: _shape(field, definitions) for name, field in schema.get("properties", {}).items()}
    return _SCALARS.get(str(names[0])) if len(names) == 1 else None


def _merged(one: Shape, other: Shape) -> Shape:
    """A shape that holds values of both."""
    if one == other:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{name: _merged(one[name], field) if name in one else field for name, field in other.items()}}
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])]
    return float if {repr(one), repr(other)} == {repr(int), repr(float)} else None


def arrow_schema() -> Any:
    """The `pyarrow.Schema` of the records; its metadata holds the version of the record schema."""
    arrow = pyarrow()
    fields = [arrow.field(name, _arrow_type(arrow, shape)) for name, shape in record_shape().items()]
    return arrow.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})


def _arrow_type(arrow: Any, shape: Shape) -> Any:
    if isinstance(shape, dict) and shape:
        return arrow.struct([arrow.field(name, _arrow_type(arrow, field)) for name, field in shape.items()])
    if isinstance(shape, list):
        return arrow.list_(_arrow_type(arrow, shape[0]))
    scalars = {int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    return scalars.get(shape, arrow.string()) if isinstance(shape, type) else arrow.string()


def row_of(record: Record) -> dict[str, Any]:
    """The record as a row: values of exactly the types of the schema, NaN, Inf and integers beyond 64 bits null."""
    return {name: _fitted(record[name], shape) for name, shape in record_shape().items() if name in record}


def _fitted(value: Any, shape: Shape) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None:
        return None
    if not shape:
        return encode({"value": value})[9:-1].decode()
    if isinstance(shape, dict):
        known = value if isinstance(value, Mapping) else {}
        return {name: _fitted(known[name], field) for name, field in shape.items() if name in known}
    if isinstance(shape, list):
        return [_fitted(item, shape[0]) for item in value] if isinstance(value, (list, tuple)) else None
    return _scalar(value, shape)


def _scalar(value: Any, shape: type) -> Any:
    if shape is str:
        return encodable(str(value))
    if not isinstance(value, (bool, int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    fitting = shape(value)
    return fitting if shape is not int or fitting in _INT64 else None
