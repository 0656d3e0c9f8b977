"""The JSON Schema of the records, generated from their annotations: the records are the only source of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints, is_typeddict

from diffai_stream.report.records import CORE_RECORDS, SCHEMA_VERSION, FindingRecord

SCHEMA_ID = f"https://diffai-stream.dev/schema/v{SCHEMA_VERSION}.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}

Schema = dict[str, Any]


def build_schema(finding_fields: Mapping[str, type]) -> Schema:
    """JSON Schema (draft 2020-12) of every record.

    `finding_fields` maps the name of an analysis to the TypedDict of the fields it adds to `FindingRecord`. A record is
    exactly one of the alternatives, told apart by `type`; readers accept fields they do not know.
    """
    build = _Builder()
    for name, record in CORE_RECORDS.items():
        build.define_record(name, [record])
    for name, fields in finding_fields.items():
        build.define_record(name, [FindingRecord, fields])
    return {
        "$schema": _DIALECT,
        "$id": SCHEMA_ID,
        "title": "diffai_stream record",
        "description": f"One line of NDJSON output, schema version {SCHEMA_VERSION}.",
        "oneOf": [{"$ref": f"#/$defs/{name}_record"} for name in (*CORE_RECORDS, *finding_fields)],
        "$defs": dict(sorted(build.definitions.items())),
    }


class _Builder:
    """Turns annotations into schemas and collects each named object once under `$defs`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._owners: dict[str, type] = {}

    def define_record(self, name: str, parts: Sequence[type]) -> None:
        """Define the record of one `type`: the fields of all `parts`, the type pinned to `name`."""
        schema = _merged([self._object(part) for part in parts])
        description = schema["properties"]["type"].get("description", "the type of the record")
        schema["properties"]["type"] = {"const": name, "description": description}
        schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
        self.definitions[f"{name}_record"] = schema

    def schema(self, annotation: Any) -> Schema:
        """Schema of one annotation; TypeError names what has no JSON counterpart."""
        annotation, description = _described(annotation)
        schema = self._plain(annotation)
        if description and "$ref" in schema:
            return {"description": description, **schema}
        return {**schema, "description": description} if description else schema

    def _plain(self, annotation: Any) -> Schema:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if annotation is Any:
            return {}
        if annotation in _SCALARS:
            return {"type": _SCALARS[annotation]}
        if is_typeddict(annotation):
            return self._reference(annotation)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, UnionType):
            return self._union(arguments)
        if annotation is list or origin in (list, Sequence):
            return {"type": "array", "items": self.schema(arguments[0])} if arguments else {"type": "array"}
        if annotation is dict or origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.schema(arguments[1]) if arguments else True}
        raise TypeError(f"no JSON type for {annotation!r}")

    def _union(self, members: Sequence[Any]) -> Schema:
        if all(member in _SCALARS for member in members):
            return {"type": [_SCALARS[member] for member in members]}
        schemas = [self.schema(member) for member in members]
        if all("enum" in schema or schema == {"type": "null"} for schema in schemas):
            return {"enum": [value for schema in schemas for value in schema.get("enum", [None])]}
        return {"anyOf": schemas}

    def _reference(self, typed_dict: type) -> Schema:
        name = typed_dict.__name__
        if self._owners.setdefault(name, typed_dict) is not typed_dict:
            name = f"{typed_dict.__module__.rpartition('.')[2]}_{name}"
        if name not in self.definitions:
            self._owners[name] = typed_dict
            self.definitions[name] = {}  # a type that contains itself refers to the entry while it is being built
            self.definitions[name] = self._object(typed_dict)
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, typed_dict: type) -> Schema:
        hints = get_type_hints(typed_dict, include_extras=True)
        schema: Schema = {"type": "object", "description": _first_sentence(typed_dict), "properties": {}, "required": []}
        for field, annotation in hints.items():
            annotation, required = _required(annotation, field in typed_dict.__required_keys__)  # type: ignore[attr-defined]
            schema["properties"][field] = self.schema(annotation)
            if required:
                schema["required"].append(field)
        schema["additionalProperties"] = True
        return schema


def _required(annotation: Any, default: bool) -> tuple[Any, bool]:
    """Strip `Required`/`NotRequired`, also from inside `Annotated`; string annotations hide them from `__required_keys__`."""
    origin = get_origin(annotation)
    if origin in (Required, NotRequired):
        return get_args(annotation)[0], origin is Required
    if origin is Annotated:
        inner, required = _required(get_args(annotation)[0], default)
        return Annotated[inner, *annotation.__metadata__], required
    return annotation, default


def _described(annotation: Any) -> tuple[Any, str]:
    """The bare annotation and the text of its `Annotated`, if any."""
    if get_origin(annotation) is not Annotated:
        return annotation, ""
    texts = [text for text in annotation.__metadata__ if isinstance(text, str)]
    return annotation.__origin__, " ".join(texts)


def _first_sentence(typed_dict: type) -> str:
    text = (typed_dict.__doc__ or "").strip()
    return " ".join(text.split("\n\n")[0].split())


def _merged(parts: Sequence[Schema]) -> Schema:
    """One object with the fields of all parts; the description is that of the last, most specific one."""
    merged: Schema = {"type": "object", "description": parts[-1]["description"], "properties": {}, "required": []}
    for part in parts:
        merged["properties"] |= part["properties"]
        merged["required"] += [field for field in part["required"] if field not in merged["required"]]
    merged["additionalProperties"] = True
    return merged
