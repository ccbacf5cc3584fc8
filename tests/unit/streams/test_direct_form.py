"""Every form of a task record, and the errors of invalid ones."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import TASK
from schemas.framing import frame
from schemas.headers import headers
from streams.intake.decode import InvalidRecord, Submission, read_task
from tests.support.records import task, task_id

MAX = 1_048_576
AT_S = 1_795_000_000.25
BODY = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": {"model": "m", "messages": []}}
EVENT = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order", "data": BODY}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BINARY = {"ce_specversion": "1.0", "ce_id": "e-1", "ce_source": "/shop", "ce_type": "order"}


def read(value: bytes | None, *, level: int = 0, at_s: float | None = AT_S, **named: str) -> Submission | InvalidRecord:
    given = [(name.replace("content_type", "content-type"), content.encode()) for name, content in named.items()]
    message = SimpleNamespace(
        topic="tasks.online", partition=3, offset=41, timestamp=at_s, key=b"any", value=value, headers=given
    )
    return read_task(message, level=level, max_bytes=MAX)


def as_json(**changes: Any) -> bytes:
    return json.dumps({**BODY, **changes}).encode()


def taken(value: bytes | None, **named: Any) -> Submission:
    found = read(value, **named)
    assert isinstance(found, Submission), found
    return found


def refused(value: bytes | None, **named: Any) -> InvalidRecord:
    found = read(value, **named)
    assert isinstance(found, InvalidRecord), found
    assert found.reason
    return found


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (as_json(), {}),
        (as_json(), {"content_type": "application/json; charset=utf-8"}),
        (b" \n" + as_json(), {"content_type": "application/octet-stream"}),
        (b"\xef\xbb\xbf" + as_json(), {}),
        (b"\xef\xbb\xbf" + json.dumps(EVENT).encode(), {"content_type": "application/cloudevents+json"}),
        (as_json(data=json.dumps({**BODY["data"], "stream_options": {}})), {}),  # type: ignore[dict-item]
        (as_json(), {"content_type": "application/vnd.acme+json", **BINARY}),
        (as_json(), BINARY),
        (json.dumps(EVENT).encode(), {}),
        (json.dumps(EVENT).encode(), {"content_type": "application/cloudevents+json; charset=UTF-8"}),
        (
            json.dumps({**EVENT, "data": None, "data_base64": base64.b64encode(as_json()).decode()}).encode(),
            {"content_type": "application/cloudevents+json"},
        ),
        (
            json.dumps(
                {
                    **{name: value for name, value in EVENT.items() if name != "data"},
                    "datacontenttype": "application/avro",
                    "data_base64": base64.b64encode(TASK.encode(task(created_ms=0, owner=None))).decode(),
                }
            ).encode(),
            {},
        ),
        (TASK.encode(task(created_ms=0, owner=None)), {}),
        (TASK.encode(task(created_ms=0, owner=None, model=None)), {"content_type": "application/avro", **BINARY}),
    ],
)
def test_all_forms_of_a_task_are_one_task(value: bytes, named: dict[str, str]) -> None:
    plain, found = taken(as_json()), taken(value, **named)
    assert found.task_id == plain.task_id
    assert json.loads(found.task["data"] or b"") == BODY["data"]
    assert {**found.task, "data": b""} == {**plain.task, "data": b""}
    assert found.direct


def test_a_task_of_json_has_what_it_names_and_defaults_for_the_rest() -> None:
    named = {"trace_id": "t", "timeout": 5, "run_timeout_ms": 700, "result_retention": 9, "callback_events": ["start"]}
    found = taken(as_json(**named, callback_url="http://10.0.0.1/done", user="u", custom_id="c", mode="streaming")).task
    assert (found["timeout_ms"], found["run_timeout_ms"], found["retention_ms"]) == (5_000, 700, 9_000)
    assert (found["trace_id"], found["user"], found["custom_id"]) == ("t", "u", "c")
    assert (found["level"], found["mode"], found["model"]) == (0, "streaming", "m")
    assert json.loads(found["data"] or b"") == {**BODY["data"], "stream": True}  # type: ignore[dict-item]
    assert taken(as_json(level=1), level=1).task["level"] == 1


def test_a_body_is_unchanged_except_for_a_contradicting_stream() -> None:
    text = '{"model": "m",  "seed": 123456789012345678901234567890}'
    assert taken(as_json(data=text)).task["data"] == text.encode()
    avro = TASK.encode(task(data=text, created_ms=0))
    assert taken(avro).task["data"] == text.encode()
    long = taken(as_json(data=json.loads(text), trace_id="t")).task["data"] or b""
    assert json.loads(long) == json.loads(text)
    streamed = taken(as_json(data='{"stream": true, "n": 123456789012345678901234567890}')).task["data"] or b""
    assert json.loads(streamed) == {"stream": False, "n": 123456789012345678901234567890}


@pytest.mark.parametrize("mode", ["callback", "streaming"])
@pytest.mark.parametrize("number", [b"123456789012345678901234567890", b"0.12345678901234567890", b"1e400"])
def test_no_number_is_rounded_in_any_form(number: bytes, mode: str) -> None:
    data = b'{"model":"m","n":%b,"stream":true,"stream_options":{}}' % number
    sent = data if mode == "streaming" else b'{"model":"m","n":%b,"stream":false}' % number
    plain = as_json(mode=mode, data="DATA").replace(b'"DATA"', data)
    event = json.dumps({**EVENT, "data": "TASK"}).encode().replace(b'"TASK"', plain)
    wrapped = json.dumps({**EVENT, "data": None, "data_base64": base64.b64encode(plain).decode()}).encode()
    for value in (plain, event, wrapped, as_json(mode=mode, data=data.decode())):
        assert taken(value).task["data"] == sent


def test_a_body_of_another_type_is_not_looked_at() -> None:
    kind = "multipart/form-data; boundary=b"
    found = taken(TASK.encode(task(data=b"--b\r\n\xff", content_type=kind, created_ms=0, model="whisper"))).task
    assert (found["data"], found["model"]) == (b"--b\r\n\xff", "whisper")


@pytest.mark.parametrize("where", ["header", "binary", "structured"])
def test_a_trace_is_taken_from_where_its_form_has_it(where: str) -> None:
    parts: dict[str, tuple[bytes, dict[str, str]]] = {
        "header": (as_json(), {"traceparent": TRACE}),
        "binary": (as_json(), {**BINARY, "ce_traceparent": TRACE}),
        "structured": (json.dumps({**EVENT, "traceparent": TRACE}).encode(), {}),
    }
    value, named = parts[where]
    assert taken(value, **named).traceparent == TRACE.encode()
    assert taken(value, **{name: text.replace("00-0", "zz-0") for name, text in named.items()}) is not None


def test_only_the_internal_form_counts_as_validated() -> None:
    one = task_id(partition=3)
    described = {name: value.decode() for name, value in headers(kind="task", ce_id=one, at_ms=1)}
    described["content_type"] = described.pop("content-type")
    avro = TASK.encode(task(id=one, owner="anybody", batch_id=None))
    assert not taken(avro, **described).direct
    assert taken(avro, **{**described, "ce_type": "order"}).direct
    assert taken(TASK.encode(task(created_ms=0)), **described).direct


@pytest.mark.parametrize(
    ("value", "named", "field"),
    [
        (None, {}, "value"),
        (b"", {}, "value"),
        (b"[1]", {}, "value"),
        (b"[1]", {"content_type": "application/json"}, "value"),
        (b'"text"', {"content_type": "application/json"}, "value"),
        (b"{broken", {}, "value"),
        (b'{"queue": "\xff"}', {}, "value"),
        (b"{" * 2_000, {}, "value"),
        (TASK.encode(task())[:-3], {}, "value"),
        (TASK.encode(task()) + b"x", {}, "value"),
        (frame(9_999, b"abc"), {}, "value"),
        (frame(2, b"abc"), {}, "value"),
        (b"\0\0", {}, "value"),
        (as_json(), {"content_type": "application/avro"}, "value"),
        (as_json(), {"content_type": "text/csv"}, "content-type"),
        (as_json(), {"content_type": "application/json; charset=utf-16"}, "content-type"),
        (b"[]", {"content_type": "application/cloudevents-batch+json"}, "content-type"),
        (as_json(), {"content_type": "application/cloudevents+avro"}, "content-type"),
        (as_json(), {**BINARY, "ce_specversion": "0.3"}, "ce_specversion"),
        (as_json(), {"ce_specversion": "1.0", "ce_id": "e", "ce_type": "t"}, "ce_source"),
        (json.dumps({**EVENT, "id": ""}).encode(), {}, "id"),
        (json.dumps({**EVENT, "specversion": 1}).encode(), {}, "specversion"),
        (json.dumps({**EVENT, "data": "text"}).encode(), {}, "data"),
        (json.dumps({**EVENT, "data": None, "data_base64": "!"}).encode(), {}, "data_base64"),
    ],
)
def test_an_invalid_task_names_its_field(value: bytes | None, named: dict[str, str], field: str) -> None:
    assert refused(value, **named).field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"queue": None}, "queue"),
        ({"queue": 5}, "queue"),
        ({"queue": "a.b"}, "queue"),
        ({"endpoint": ""}, "endpoint"),
        ({"endpoint": ["/v1"]}, "endpoint"),
        ({"data": None}, "data"),
        ({"data": 7}, "data"),
        ({"data": []}, "data"),
        ({"data": "no json"}, "data"),
        ({"data": "[]"}, "data"),
        ({"level": 1}, "level"),
        ({"level": "0"}, "level"),
        ({"level": True}, "level"),
        ({"calback_url": "http://x"}, "calback_url"),
        ({"callback_url": 1}, "callback_url"),
        ({"callback_url": "ftp://x"}, "callback_url"),
        ({"callback_events": "start"}, "callback_events"),
        ({"callback_events": ["other"]}, "callback_events"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 1.5}, "timeout"),
        ({"timeout": 1, "timeout_ms": 5}, "timeout"),
        ({"timeout_ms": 10**15}, "timeout"),
        ({"mode": "batch"}, "mode"),
        ({"mode": "callback", "response_mode": "callback"}, "response_mode"),
        ({"batch_id": "b"}, "batch_id"),
        ({"data_ref": {"uri": "tasks/x", "size": 1, "sha256": ""}}, "data_ref"),
        ({"replay_of": "x"}, "replay_of"),
        ({"created_ms": -1}, "created_ms"),
        ({"created_ms": 1 << 60}, "created_ms"),
        ({"id": "TASK-1"}, "id"),
        ({"id": task_id(partition=5)}, "id"),
        ({"id": task_id(partition=3, mode="K")}, "id"),
        ({"idempotency_key": ""}, None),
        ({"idempotency_key": "café"}, "idempotency_key"),
        ({"user": "u" * 300}, "user"),
        ({"content_type": "a\r\nb"}, "content_type"),
        ({"reply_topic": "anything"}, "reply_topic"),
    ],
)
def test_a_wrong_member_is_named(changes: dict[str, Any], field: str | None) -> None:
    if field is None:
        assert taken(as_json(**changes)).task["idempotency_key"] is None
    else:
        assert refused(as_json(**changes)).field == field


def test_a_typo_gets_a_suggestion() -> None:
    assert "did you mean callback_url?" in refused(as_json(calback_url="http://x")).reason


@pytest.mark.parametrize(
    "changes",
    [
        {"data_ref": {"uri": "tasks/of-others", "size": 1, "sha256": ""}, "data": None},
        {"batch_id": "b"},
        {"batch_line": 3},
        {"mode": "batch"},
        {"replay_of": "x"},
    ],
)
def test_direct_avro_records_cannot_set_reserved_fields(changes: dict[str, Any]) -> None:
    assert refused(TASK.encode(task(**{"created_ms": 0, **changes}))).field in changes


@pytest.mark.parametrize("at_s", [None, -1.0, 0.0, 946_684_799.0, 4_102_444_800.0, 9e12])
def test_a_record_without_a_sensible_time_is_refused(at_s: float | None) -> None:
    assert refused(as_json(), at_s=at_s).field == "timestamp"


@given(st.binary(max_size=300), st.sampled_from(["", "application/json", "application/cloudevents+json", "x"]))
def test_no_bytes_of_any_type_end_the_process(value: bytes, kind: str) -> None:
    for bytes_ in (value, b"{" + value, b'{"specversion":"1.0",' + value, b"\0\0\0\0\x0b" + value):
        read(bytes_, content_type=kind, **BINARY)
        read(bytes_, content_type=kind)


members = st.sampled_from(("queue", "level", "endpoint", "data", "mode", "timeout", "callback_events", "id", "owner"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(members | st.text(max_size=6), values, max_size=4))
def test_no_member_of_any_kind_ends_the_process(changes: dict[str, Any]) -> None:
    found = read(as_json(**changes))
    assert isinstance(found, Submission) or found.reason
