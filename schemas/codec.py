"""Avro encoding of all records with fastavro; tests compare its bytes with avro-python3, the reference implementation.

Writers use the newest schema of a record; readers resolve any registered version that the framing names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import fastavro
from fastavro.types import Schema

from schemas import batches, records, usage
from schemas.framing import HEADER, MAGIC, frame, unframe

NAMESPACE = "headrace."
AVSC = Path(__file__).parent / "avsc"
R = TypeVar("R")


class SchemaError(ValueError):
    """The record does not match its schema."""


@cache
def registry() -> Mapping[int, Mapping[str, Any]]:
    """Return schema id → {name, version, file}; ids never change."""
    return {int(number): entry for number, entry in json.loads((AVSC / "ids.json").read_text()).items()}


@cache
def schema_text(schema_id: int) -> str:
    """Return the .avsc text of a registered id."""
    return (AVSC / str(registry()[schema_id]["file"])).read_text()


@cache
def parsed(schema_id: int) -> Schema:
    """Return the schema as parsed by fastavro."""
    return fastavro.parse_schema(json.loads(schema_text(schema_id)))


def latest(name: str) -> int:
    """Return the id of the newest version of a record."""
    return max((entry["version"], number) for number, entry in registry().items() if entry["name"] == name)[1]


class Codec(Generic[R]):
    """Encode and decode one kind of record, framing included."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.schema_id = latest(name)
        self._schema = parsed(self.schema_id)
        self._head = HEADER.pack(MAGIC, self.schema_id)
        self._hints = _hints(json.loads(schema_text(self.schema_id)))

    def encode(self, record: R) -> bytes:
        """Return the framed bytes; a record that does not fit raises SchemaError."""
        out = io.BytesIO()
        out.write(self._head)
        try:
            fastavro.schemaless_writer(out, self._schema, _hinted(cast("dict[str, Any]", record), self._hints))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise SchemaError(f"invalid {self.name} record: {error}") from error
        return out.getvalue()

    def decode(self, data: bytes) -> R:
        """Read framed bytes; raises FramingError or SchemaError."""
        schema_id, start = unframe(data)
        source = io.BytesIO(data)
        source.seek(start)
        try:
            if schema_id == self.schema_id:
                value = fastavro.schemaless_reader(source, self._schema, None)
            else:
                value = fastavro.schemaless_reader(source, self._writer(schema_id), self._schema)
        except SchemaError:
            raise
        except Exception as error:  # fastavro raises many types for invalid bytes
            cut = "unexpected end of data" if isinstance(error, EOFError) else type(error).__name__
            raise SchemaError(f"invalid {self.name} record: {str(error) or cut}") from error
        if source.tell() != len(data):
            raise SchemaError(f"{len(data) - source.tell()} extra bytes after the {self.name} record")
        return cast("R", value)

    def _writer(self, schema_id: int) -> Schema:
        entry = registry().get(schema_id)
        if entry is None or entry["name"] != self.name:
            raise SchemaError(f"schema id {schema_id} is not registered for {self.name}")
        return parsed(schema_id)


class _Hint(NamedTuple):
    """A field that may contain a record or null."""

    member: str
    name: str
    within: tuple[_Hint, ...]


def _hints(schema: Any, known: dict[str, Any] | None = None) -> tuple[_Hint, ...]:
    """Find the fields of a record that may contain another record or null."""
    known = {} if known is None else known
    known[schema["name"]] = schema
    found: list[_Hint] = []
    for field in schema["fields"]:
        kind = field["type"]
        if not isinstance(kind, list) or len(kind) != 2 or kind[0] != "null":
            continue
        inner = known.get(kind[1].removeprefix(NAMESPACE)) if isinstance(kind[1], str) else kind[1]
        if inner is not None and inner["type"] == "record":
            found.append(_Hint(field["name"], NAMESPACE + inner["name"], _hints(inner, known)))
    return tuple(found)


def _hinted(record: dict[str, Any], hints: tuple[_Hint, ...]) -> dict[str, Any]:
    """Name the types of nested records; otherwise fastavro tries each branch of a union, value by value."""
    for hint in hints:
        value = record.get(hint.member)
        if value is not None:
            record = {**record, hint.member: (hint.name, _hinted(value, hint.within))}
    return record


def state_of(row: bytes) -> records.State | None:
    """Return the state of a framed Status without decoding it: the enum is the first field, one varint byte.

    None for bytes that are not a state record, for example from another program.
    """
    try:
        return records.STATES[row[HEADER.size] >> 1]
    except IndexError:
        return None


def batch_state_of(row: bytes) -> batches.BatchState:
    """Return the state of a framed Batch without decoding it."""
    return batches.BATCH_STATES[row[HEADER.size] >> 1]


TASK: Codec[records.Task] = Codec("task")
STATUS: Codec[records.Status] = Codec("status")
WORK: Codec[records.Work] = Codec("work")
EVENT: Codec[records.Event] = Codec("event")
RESULT: Codec[records.Result] = Codec("result")
CHUNK: Codec[records.Chunk] = Codec("chunk")
CONTROL: Codec[records.Control] = Codec("control")
QUEUE: Codec[records.Queue] = Codec("queue")
INSTANCE: Codec[records.Instance] = Codec("instance")
DELIVERY: Codec[records.Delivery] = Codec("delivery")
BATCH: Codec[batches.Batch] = Codec("batch")
FILE: Codec[batches.BatchFile] = Codec("file")
USAGE: Codec[usage.UsageRecord] = Codec("usage")

__all__ = ["AVSC", "Codec", "SchemaError", "batch_state_of", "frame", "registry", "schema_text", "state_of"]
