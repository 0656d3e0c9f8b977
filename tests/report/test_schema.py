from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from jsonschema import Draft202012Validator

from diffai_stream.analyses.catalogue import ANALYSES
from diffai_stream.report.records import CORE_RECORDS
from diffai_stream.report.schema import SCHEMA_ID, build_schema
from tests.report import sample_records as sample


@pytest.fixture(scope="module")
def schema():
    return build_schema(sample.FINDING_FIELDS)


def test_is_a_valid_schema_of_the_major_version(schema):
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == SCHEMA_ID
    assert schema["$id"].endswith("/v1.json")
    assert len(schema["oneOf"]) == len(CORE_RECORDS) + len(sample.FINDING_FIELDS)


@pytest.mark.parametrize("run", ["full_run", "transformer_run"])
def test_every_sample_record_is_valid(schema, run):
    validator = Draft202012Validator(schema)
    for record in getattr(sample, run)():
        assert [error.message for error in validator.iter_errors(record)] == []


def test_the_sample_has_every_type_and_status():
    records = sample.full_run()
    assert {record["type"] for record in records} == {*CORE_RECORDS, *sample.FINDING_FIELDS}
    statuses = {record["status"] for record in records if record["type"] == "tensor"}
    assert statuses == {"changed", "added", "removed", "reshaped", "retyped"}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "nonsense"},
        {"status": "broken"},
        {"name": None},
        {"schema_version": 2},
        {"old": {"name": "x"}},
        {"seq": "0"},
        {"change": {}},
    ],
)
def test_wrong_records_are_refused(schema, change):
    record = next(record for record in sample.full_run() if record["type"] == "tensor")
    assert Draft202012Validator(schema).is_valid(record)
    assert not Draft202012Validator(schema).is_valid({**record, **change})


def test_missing_fields_are_refused_and_unknown_ones_accepted(schema):
    validator = Draft202012Validator(schema)
    for record in sample.full_run():
        assert not validator.is_valid({key: item for key, item in record.items() if key != "run_id"})
        assert validator.is_valid({**record, "future_field": 1})


def test_every_field_of_the_contract_is_described(schema):
    for name, definition in schema["$defs"].items():
        assert definition["description"], name
        if name.removesuffix("_record") in CORE_RECORDS:
            assert [key for key, field in definition["properties"].items() if "description" not in field] == []


class Inner(TypedDict):
    """Inside."""

    children: "list[Inner]"


class Fields(TypedDict):
    """One of each."""

    number: Annotated[float | None, "a number"]
    choice: Annotated[Literal["a", "b"] | None, "a choice"]
    inner: Annotated[Inner | None, "an object"]
    numbers: list[list[float]]
    table: dict[str, int]
    anything: Any
    optional: NotRequired[Annotated[int, "sometimes"]]
    annotated_outside: Annotated[NotRequired[int], "sometimes"]


def test_annotations():
    record = build_schema({"x": Fields})["$defs"]["x_record"]
    fields = record["properties"]
    assert fields["number"] == {"type": ["number", "null"], "description": "a number"}
    assert fields["choice"] == {"enum": ["a", "b", None], "description": "a choice"}
    assert fields["inner"] == {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}], "description": "an object"}
    assert fields["numbers"]["items"]["items"] == {"type": "number"}
    assert fields["table"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert fields["anything"] == {}
    assert "optional" not in record["required"]
    assert "annotated_outside" not in record["required"]
    assert fields["annotated_outside"] == {"type": "integer", "description": "sometimes"}


def test_total_false_requires_nothing(schema):
    base = {"schema_version", "run_id", "seq", "type", "scope", "subject", "basis"}
    assert set(schema["$defs"]["quantization_record"]["required"]) == base


def test_what_json_cannot_hold_is_refused():
    class Bad(TypedDict):
        """Bad."""

        field: bytes

    with pytest.raises(TypeError, match="bytes"):
        build_schema({"bad": Bad})


def test_equal_names_of_different_types_are_kept_apart():
    first = TypedDict("Item", {"a": int})  # noqa: UP013 - two types of one name
    second = TypedDict("Item", {"b": int})  # noqa: UP013
    second.__module__ = "somewhere.else_"
    one, two = TypedDict("One", {"item": first}), TypedDict("Two", {"item": second})
    definitions = build_schema({"one": one, "two": two})["$defs"]
    assert definitions["Item"]["required"] == ["a"]
    assert definitions["else__Item"]["required"] == ["b"]


def paths_of(definition, definitions, prefix=""):
    """(dotted path, JSON type) of every field, null apart; lists add `[]`."""
    for name, field in definition.get("properties", {}).items():
        for alternative in field.get("anyOf", [field]):
            yield from described(alternative, definitions, f"{prefix}{name}")


def described(field, definitions, path):
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]]
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        yield from {(path, {str: "string", int: "integer"}[type(value)]) for value in values if value is not None}
        return
    kinds = field.get("type", ())
    for kind in {kinds} if isinstance(kinds, str) else set(kinds):
        if kind != "null":
            yield path, kind
    if "properties" in field:
        yield from paths_of(field, definitions, f"{path}.")
    if isinstance(field.get("items"), dict):
        yield from described(field["items"], definitions, f"{path}[]")


def test_a_field_has_one_type_in_all_records():
    definitions = build_schema({row.name: row.fields for row in ANALYSES.values()})["$defs"]
    types = {}
    for name, definition in definitions.items():
        for path, kind in paths_of(definition, definitions) if name.endswith("_record") else ():
            types.setdefault(path, {}).setdefault(kind, []).append(name)
    assert {path: kinds for path, kinds in types.items() if len(kinds) > 1} == {}
    assert len(types) > 300
