from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from schemas import batches, common, records, usage
from schemas.codec import registry, schema_text


def declared(schema: Any) -> Iterator[dict[str, Any]]:
    """List every record and enum that a schema declares, the inner ones too."""
    if isinstance(schema, list):
        for branch in schema:
            yield from declared(branch)
    elif isinstance(schema, dict):
        if "name" in schema and schema["type"] in ("record", "enum"):
            yield schema
        for field in schema.get("fields", ()):
            yield from declared(field["type"])
        for inner in (schema["type"], schema.get("items")):
            yield from declared(inner)


NEWEST = {entry["name"]: number for number, entry in sorted(registry().items(), key=lambda pair: pair[1]["version"])}
DECLARED = [
    pytest.param(schema, id=f"{name}-{schema['name']}")
    for name, number in sorted(NEWEST.items())
    for schema in declared(json.loads(schema_text(number)))
]
RECORDS = [param for param in DECLARED if param.values[0]["type"] == "record"]  # type: ignore[index, call-overload]
ENUMS = [param for param in DECLARED if param.values[0]["type"] == "enum"]  # type: ignore[index, call-overload]


RENAMED = {"File": "BatchFile", "Try": "AttemptSummary"}
"""Record name in the schema, which is a contract → name of the class."""


def shape_of(name: str) -> Any:
    name = RENAMED.get(name, name)
    return next(getattr(module, name) for module in (records, batches, common, usage) if hasattr(module, name))


@pytest.mark.parametrize("schema", RECORDS)
def test_the_dictionary_has_the_fields_of_the_schema(schema: dict[str, Any]) -> None:
    shape = shape_of(schema["name"])
    assert list(get_type_hints(shape)) == [field["name"] for field in schema["fields"]]


@pytest.mark.parametrize("schema", RECORDS)
def test_a_field_may_be_null_in_both_or_in_neither(schema: dict[str, Any]) -> None:
    hints = get_type_hints(shape_of(schema["name"]))
    for field in schema["fields"]:
        nullable = isinstance(field["type"], list) and "null" in field["type"]
        assert nullable == (type(None) in get_args(hints[field["name"]])), field["name"]


@pytest.mark.parametrize("schema", ENUMS)
def test_the_symbols_are_those_of_the_schema(schema: dict[str, Any]) -> None:
    symbols = get_type_hints(records.Control)["kind"] if schema["name"] == "ControlKind" else shape_of(schema["name"])
    assert get_args(symbols) == tuple(schema["symbols"])


def test_the_states_are_listed_in_the_order_of_the_schema() -> None:
    assert get_args(records.State) == records.STATES
    assert set(records.STATES) > records.TERMINAL


@pytest.mark.parametrize("schema", RECORDS)
def test_every_field_is_documented(schema: dict[str, Any]) -> None:
    assert schema.get("doc")
    assert [field["name"] for field in schema["fields"] if not field.get("doc")] == []


@pytest.mark.parametrize("schema", RECORDS)
def test_times_are_whole_milliseconds(schema: dict[str, Any]) -> None:
    for field in schema["fields"]:
        if field["name"].endswith("_ms"):
            assert field["type"] in ("long", ["null", "long"]), field["name"]
