from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import AVSC, latest, registry, schema_text
from tests.support.avro_records import records
from tests.support.schema_compatibility import incompatibilities, incompatible_versions


def record(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def fixed(size: int) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size}


A = field("a", "int")
INNER = record(A, name="Inner")
WIDER = record(A, field("b", "int"), name="Inner")
TREE = record(field("children", {"type": "array", "items": "R"}))


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        pytest.param(record(A), record(A), id="the same"),
        pytest.param(record(A, field("b", "int", default=0)), record(A), id="new field with default"),
        pytest.param(record(A), record(A, field("b", "int")), id="field removed"),
        pytest.param(record(field("b", "string"), A), record(A, field("b", "string")), id="fields reordered"),
        pytest.param(record(field("z", "int", aliases=["a"])), record(A), id="field renamed with alias"),
        pytest.param(record(field("a", "long")), record(A), id="int to long"),
        pytest.param(record(field("a", "double")), record(field("a", "float")), id="float to double"),
        pytest.param(record(field("a", "bytes")), record(field("a", "string")), id="string to bytes"),
        pytest.param(record(field("a", "string")), record(field("a", "bytes")), id="bytes to string"),
        pytest.param(record(field("a", ["null", "int"])), record(A), id="made nullable"),
        pytest.param(record(field("a", ["null", "long"])), record(A), id="made nullable and wider"),
        pytest.param(record(field("a", ["int", "null"])), record(field("a", ["null", "int"])), id="union reordered"),
        pytest.param(record(field("a", enum("x", "y"))), record(field("a", enum("x"))), id="enum symbol added"),
        pytest.param(
            record(field("a", enum("x", default="x"))), record(field("a", enum("x", "y"))), id="symbol gone, default"
        ),
        pytest.param(record(A, name="new", aliases=["R"]), record(A), id="record renamed with alias"),
        pytest.param(record(A, namespace="other"), record(A, namespace="one"), id="namespace changed"),
        pytest.param(record(field("a", INNER)), record(field("a", WIDER)), id="inner field removed"),
        pytest.param(
            record(field("a", {"type": "array", "items": "long"})),
            record(field("a", {"type": "array", "items": "int"})),
            id="items wider",
        ),
        pytest.param(TREE, TREE, id="recursive"),
        pytest.param(record(field("a", {"type": "int"})), record(A), id="type in a wrapper"),
        pytest.param(record(field("a", fixed(4))), record(field("a", fixed(4))), id="fixed"),
        pytest.param(
            record(field("a", INNER), field("b", "Inner")), record(field("a", INNER), field("b", INNER)), id="by name"
        ),
    ],
)
def test_compatible(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    assert incompatibilities(reader, writer) == []


@pytest.mark.parametrize(
    ("reader", "writer", "sentence"),
    [
        pytest.param(record(A, field("b", "int")), record(A), "R.b is new and has no default", id="no default"),
        pytest.param(record(field("z", "int")), record(A), "R.z is new and has no default", id="renamed"),
        pytest.param(record(A), record(field("a", "long")), "R.a was long and is now int", id="narrower"),
        pytest.param(record(A), record(field("a", "string")), "R.a was string and is now int", id="another type"),
        pytest.param(record(A), record(field("a", ["null", "int"])), "R.a was null and is now int", id="not nullable"),
        pytest.param(
            record(field("a", ["null", "string"])),
            record(A),
            "R.a may hold int, which the new union does not list",
            id="not in the union",
        ),
        pytest.param(
            record(field("a", enum("x"))),
            record(field("a", enum("x", "y"))),
            "R.a no longer knows the symbol y and has no default",
            id="symbol gone",
        ),
        pytest.param(
            record(field("a", ["null", enum("x")])),
            record(field("a", ["null", enum("x", "y")])),
            "R.a no longer knows the symbol y and has no default",
            id="symbol gone in a union",
        ),
        pytest.param(record(A, name="new"), record(A), "new was named R and is now named new", id="record renamed"),
        pytest.param(
            record(field("a", WIDER)), record(field("a", INNER)), "R.a.b is new and has no default", id="inner field"
        ),
        pytest.param(
            record(field("a", INNER), field("c", ["null", "Inner"])),
            record(field("a", INNER), field("c", ["null", "string"])),
            "R.c may hold string, which the new union does not list",
            id="union by name",
        ),
        pytest.param(
            record(field("a", {"type": "map", "values": "int"})),
            record(field("a", {"type": "map", "values": "string"})),
            "R.a{} was string and is now int",
            id="map values",
        ),
        pytest.param(
            record(field("a", {"type": "array", "items": WIDER})),
            record(field("a", {"type": "array", "items": INNER})),
            "R.a[].b is new and has no default",
            id="items",
        ),
        pytest.param(
            record(field("a", fixed(4))), record(field("a", fixed(8))), "R.a had 8 bytes and now has 4", id="fixed"
        ),
        pytest.param(
            record(field("a", {"type": "long", "logicalType": "timestamp-micros"})),
            record(field("a", {"type": "long", "logicalType": "timestamp-millis"})),
            "R.a was timestamp-millis and is now timestamp-micros in its logical type",
            id="logical type",
        ),
    ],
)
def test_breaking_by_a_sentence_that_names_the_field(
    reader: dict[str, Any], writer: dict[str, Any], sentence: str
) -> None:
    assert incompatibilities(reader, writer) == [sentence]


def test_every_incompatibility_is_reported() -> None:
    new = record(field("a", "string"), field("b", "int"), field("c", enum("x")))
    old = record(A, field("c", enum("y", "z")))
    assert len(incompatibilities(new, old)) == 4


def test_every_registered_version_reads_all_before_it() -> None:
    assert incompatible_versions(AVSC) == []


def test_a_breaking_version_in_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.avsc").write_text(json.dumps(record(A)))
    (tmp_path / "two.avsc").write_text(json.dumps(record(A, field("b", "int"))))
    ids = {"1": {"name": "r", "version": 1, "file": "one.avsc"}, "2": {"name": "r", "version": 2, "file": "two.avsc"}}
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    assert incompatible_versions(tmp_path) == ["r version 2 cannot read version 1: R.b is new and has no default"]


@given(data=st.data())
def test_dropping_a_field_is_compatible_and_fastavro_agrees(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted({entry["name"] for entry in registry().values()})))
    writer = json.loads(schema_text(latest(name)))
    reader = json.loads(schema_text(latest(name)))
    # A field that declares a type others use by name cannot go without them.
    plain = ("string", "int", "long", "boolean", ["null", "string"])
    simple = [one for one in reader["fields"] if one["type"] in plain]
    reader["fields"].remove(data.draw(st.sampled_from(simple)))
    assert incompatibilities(reader, writer) == []
    written = data.draw(records(writer))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, writer, written)
    out.seek(0)
    read: Any = fastavro.schemaless_reader(out, writer, reader)
    assert set(read) == {one["name"] for one in reader["fields"]}
