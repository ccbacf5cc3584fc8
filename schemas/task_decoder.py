"""Decodes task records: Avro or JSON, plain or as a CloudEvent in binary or structured mode. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from schemas.codec import TASK, SchemaError
from schemas.framing import MAGIC, FramingError
from schemas.headers import AVRO, TRACEPARENT, find, traceparent_of
from schemas.json_text import BOM, TooDeep, member
from schemas.media_types import is_json
from schemas.records import Task
from schemas.task_body import json_object, normalise_body
from schemas.task_json import json_task, read_json_task
from schemas.validation import Invalid

Headers = Sequence[tuple[str, bytes | None]]

AVRO_TYPES = frozenset(
    (
        "application/avro",
        "avro/binary",
        "application/x-avro",
        "application/vnd.apache.avro+binary",
        "application/vnd.confluent.avro",
    )
)
UNSPECIFIED_TYPES = frozenset(("", "application/octet-stream", "binary/octet-stream"))
"""Unspecific media types; the first byte decides."""
STRUCTURED, BATCHED = "application/cloudevents", "application/cloudevents-batch"
CLOUD_JSON = f"{STRUCTURED}+json"
REQUIRED = ("id", "source", "type")
OUR_SOURCE, OUR_TYPE = b"headrace", b"io.headrace.task"


class DecodedTask(NamedTuple):
    """A decoded task record."""

    task: Task
    traceparent: bytes | None
    is_internal: bool
    """Whether it is in the form that Headrace writes, for tasks that an API has validated."""


def decode_task(value: bytes, headers: Headers, *, level: int) -> DecodedTask:
    """Decode a record in any form; raises Invalid, with the field `value` if no other field is wrong."""
    if _is_plain(headers):
        task = _avro(value)
        return DecodedTask(task, traceparent_of(headers), is_internal=task["id"] is not None)
    return _read_any(value, headers, level=level)


def _read_any(value: bytes, headers: Headers, *, level: int) -> DecodedTask:
    value = value.removeprefix(BOM)
    kind, charset = _media_type(headers)
    if charset not in ("", "utf-8", "utf8", "us-ascii", "ascii"):
        raise Invalid("content-type", f"content-type names the charset {charset[:40]}; JSON is UTF-8")
    if kind.startswith(BATCHED):
        raise Invalid("content-type", "a batch of CloudEvents is not a task; write one record per task")
    if kind.startswith(STRUCTURED):
        return _structured(value, kind, headers, level=level)
    traceparent = traceparent_of(headers)
    if (version := find(headers, "ce_specversion")) is not None:
        _check_event({name: _header(headers, f"ce_{name}") for name in REQUIRED}, version.decode("latin-1"), "ce_")
        traceparent = traceparent or _valid_trace(find(headers, "ce_traceparent"))
    if kind in UNSPECIFIED_TYPES and value.lstrip()[:1] == b"{":
        members = json_object(value, field="value")
        if "specversion" in members:
            return _structured(value, CLOUD_JSON, headers, level=level)
        return DecodedTask(json_task(value, members, level=level), traceparent, is_internal=False)
    if kind in AVRO_TYPES or (kind in UNSPECIFIED_TYPES and value[:1] == bytes([MAGIC])):
        task = _avro(value)
        return DecodedTask(task, traceparent, is_internal=task["id"] is not None and has_internal_headers(headers))
    if is_json(kind):
        return DecodedTask(read_json_task(value, level=level), traceparent, is_internal=False)
    if kind in UNSPECIFIED_TYPES:
        raise Invalid("value", "the record is neither framed Avro, which begins with a zero byte, nor a JSON object")
    raise Invalid(
        "content-type", f"content-type {kind[:80]} is none of application/avro, {CLOUD_JSON}, application/json"
    )


def _is_plain(headers: Headers) -> bool:
    """Return whether the headers are those that Headrace writes, which is the case for nearly all records."""
    decoded = dict(headers)  # as in `find`, the last value of a name counts
    return (
        decoded.get("content-type") == AVRO
        and decoded.get("ce_source") == OUR_SOURCE
        and decoded.get("ce_type") == OUR_TYPE
        and decoded.get("ce_specversion") == b"1.0"
        and bool(decoded.get("ce_id"))
    )


def has_internal_headers(headers: Headers) -> bool:
    """Return whether the headers claim that Headrace wrote the record."""
    return find(headers, "ce_source") == OUR_SOURCE and find(headers, "ce_type") == OUR_TYPE


def accepted(value: bytes, headers: Headers, *, level: int) -> Task:
    """Decode the record of an accepted task, with the body that workers received; raises Invalid.

    The tenant is in the state record; a direct record need not name it.
    """
    decoded = decode_task(value, headers, level=level)
    task = decoded.task
    if not decoded.is_internal and task["data"]:
        task["data"], _ = normalise_body(task["data"], mode=task["mode"], content_type=task["content_type"])
    return task


def _avro(value: bytes) -> Task:
    try:
        return TASK.decode(value)
    except (FramingError, SchemaError) as error:
        raise Invalid("value", str(error)) from error


def _structured(value: bytes, kind: str, headers: Headers, *, level: int) -> DecodedTask:
    """Decode a structured CloudEvent."""
    if kind != CLOUD_JSON:
        raise Invalid("content-type", f"content-type {kind[:80]} is not supported; structured CloudEvents must be JSON")
    event = json_object(value, field="value")
    version = event.get("specversion")
    _check_event(event, version if isinstance(version, str) else "", "")
    parent = event.get("traceparent")
    trace = traceparent_of(headers) or _valid_trace(parent.encode() if isinstance(parent, str) else None)
    if event.get("data_base64") is not None:
        return DecodedTask(_encoded(event, level=level), trace, is_internal=False)
    data = event.get("data")
    if not isinstance(data, dict):
        raise Invalid("data", "the data of the event must be a task, a JSON object")
    try:
        text = member(value, event, "data")
    except TooDeep:
        raise Invalid("data", "data is nested too deeply") from None
    return DecodedTask(json_task(text, data, level=level), trace, is_internal=False)


def _encoded(event: Mapping[str, Any], *, level: int) -> Task:
    encoded, kind = event["data_base64"], event.get("datacontenttype")
    if event.get("data") is not None or not isinstance(encoded, str):
        raise Invalid("data_base64", "data_base64 must be base64 text, without data")
    try:
        value = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("data_base64", "data_base64 is not valid base64") from None
    if isinstance(kind, str) and kind.partition(";")[0].strip().lower() in AVRO_TYPES:
        return _avro(value)
    return read_json_task(value, level=level)


def _check_event(attributes: Mapping[str, Any], version: str, prefix: str) -> None:
    if not version.startswith("1."):
        raise Invalid(f"{prefix}specversion", f"{prefix}specversion must be 1.0")
    for name in REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise Invalid(prefix + name, f"a CloudEvent needs {prefix}{name}")


def _media_type(headers: Headers) -> tuple[str, str]:
    """Return the media type and its charset; the header's name is not case-sensitive."""
    named = next((value for name, value in reversed(headers) if name.lower() == "content-type"), None)
    kind, _, parameters = (named or b"").decode("latin-1").lower().partition(";")
    charset = next(
        (part.partition("=")[2] for part in parameters.split(";") if part.strip().startswith("charset=")), ""
    )
    return kind.strip(), charset.strip().strip('"')


def _header(headers: Headers, name: str) -> str | None:
    value = find(headers, name)
    return None if value is None else value.decode("utf-8", "replace")


def _valid_trace(value: bytes | None) -> bytes | None:
    return value if value is not None and TRACEPARENT.fullmatch(value) else None
