from __future__ import annotations

import io
import json
from contextlib import suppress
from functools import cache
from typing import Any

import avro.io
import avro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import SchemaError, registry, schema_text, state_of
from schemas.events import event
from schemas.framing import HEADER, FramingError, frame
from schemas.records import STATES
from tests.support.avro_records import records

CODECS: dict[str, codec.Codec[Any]] = {
    value.name: value for value in vars(codec).values() if isinstance(value, codec.Codec)
}
every_codec = pytest.mark.parametrize("name", sorted(CODECS))


@cache
def records_of(name: str) -> st.SearchStrategy[Any]:
    """Return the strategy for records of a codec; to build one takes longer than to draw from it."""
    return records(json.loads(schema_text(CODECS[name].schema_id)))


@cache
def reference_schema(name: str) -> avro.schema.Schema:
    return avro.schema.parse(schema_text(CODECS[name].schema_id))


def reference_bytes(name: str, record: Any) -> bytes:
    """Write a record with avro-python3."""
    out = io.BytesIO()
    out.write(HEADER.pack(0, CODECS[name].schema_id))
    avro.io.DatumWriter(reference_schema(name)).write(record, avro.io.BinaryEncoder(out))
    return out.getvalue()


def reference_record(name: str, data: bytes) -> Any:
    """Read a record with avro-python3."""
    return avro.io.DatumReader(reference_schema(name)).read(avro.io.BinaryDecoder(io.BytesIO(data[HEADER.size :])))


def test_every_registered_schema_has_a_codec() -> None:
    assert {entry["name"] for entry in registry().values()} == set(CODECS)


@every_codec
@given(data=st.data())
def test_both_libraries_write_the_same_bytes_and_read_them(name: str, data: st.DataObject) -> None:
    record = data.draw(records_of(name))
    ours = CODECS[name].encode(record)
    assert ours == reference_bytes(name, record)
    assert reference_record(name, ours) == record
    assert CODECS[name].decode(reference_bytes(name, record)) == record


@every_codec
@given(data=st.data(), more=st.binary(min_size=1, max_size=8))
def test_bytes_that_are_not_those_of_one_record_are_refused(name: str, data: st.DataObject, more: bytes) -> None:
    whole = CODECS[name].encode(data.draw(records_of(name)))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises((FramingError, SchemaError)):
        CODECS[name].decode(whole[:cut])
    with pytest.raises(SchemaError, match=f"{len(more)} extra bytes after"):
        CODECS[name].decode(whole + more)
    flipped = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        flipped[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FramingError, SchemaError):  # any other error would end a reader
        CODECS[name].decode(bytes(flipped))


def test_a_truncated_record_is_named() -> None:
    with pytest.raises(SchemaError, match="invalid task record: unexpected end of data"):
        codec.TASK.decode(b"\x00\x00\x00\x00\x01")


@every_codec
@given(garbage=st.binary(max_size=60), framed=st.booleans())
def test_garbage_raises_only_our_errors(name: str, garbage: bytes, framed: bool) -> None:
    data = frame(CODECS[name].schema_id, garbage) if framed else garbage
    with suppress(FramingError, SchemaError):
        CODECS[name].decode(data)


@every_codec
def test_a_record_of_another_kind_is_refused(name: str) -> None:
    other = next(one for one in CODECS.values() if one.name != name)
    with pytest.raises(SchemaError, match=f"schema id {other.schema_id} is not registered for {name}"):
        CODECS[name].decode(frame(other.schema_id, b""))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"queue": "q"},
        {"queue": 1, "level": 0, "endpoint": "/v1/x"},
        {"queue": "q", "level": "0", "endpoint": "/v1/x"},
        {"queue": "q", "level": 2**70, "endpoint": "/v1/x"},
        {"queue": "q", "level": 0, "endpoint": "/v1/x", "mode": "smoke signals"},
        {"queue": "\ud800", "level": 0, "endpoint": "/v1/x"},
        {"queue": "q", "level": 0, "endpoint": "/v1/x", "data_ref": {"uri": "u"}},
        None,
        [],
    ],
)
def test_a_record_that_does_not_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(SchemaError, match="invalid task record"):
        codec.TASK.encode(wrong)


def test_what_a_direct_producer_leaves_out_gets_its_default() -> None:
    written: Any = {"queue": "q", "level": 0, "endpoint": "/v1/x", "data": b"{}"}
    task = codec.TASK.decode(codec.TASK.encode(written))
    assert (task["mode"], task["id"], task["timeout_ms"], task["data"]) == ("callback", None, 0, b"{}")


@given(data=st.data(), state=st.sampled_from(STATES))
def test_the_state_of_a_row_is_read_without_decoding(data: st.DataObject, state: str) -> None:
    row = data.draw(records_of("status")) | {"state": state}
    assert state_of(codec.STATUS.encode(row)) == state


@pytest.mark.parametrize("value", [b"", b"no", b"no record at all", HEADER.pack(0, 1), HEADER.pack(0, 1) + b"\xff"])
def test_what_cannot_be_a_row_has_no_state(value: bytes) -> None:
    assert state_of(value) is None


def test_an_event_needs_only_its_kind_and_time() -> None:
    written = event("heartbeat", at_ms=5)
    assert codec.EVENT.decode(codec.EVENT.encode(written)) == written
