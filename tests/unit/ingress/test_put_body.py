"""What the body of put may be, and how a wrong one is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequest
from ingress.api.bella.serialization import QueueLimits, parse_put
from schemas.records import Task

LIMITS = QueueLimits(max_timeout_s=600)
GOOD = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": {"model": "m", "messages": []}}


def parse(body: object) -> Task:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_put(raw, limits=LIMITS)


def changed(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | members).items() if value != "ABSENT"}


def test_defaults() -> None:
    task = parse(GOOD)
    assert task["mode"] == "callback"
    assert task["level"] == 0
    assert task["timeout_ms"] == 86_400_000
    assert task["model"] == "m"
    assert task["data"] == b'{"model":"m","messages":[]}'
    assert task["callback_url"] is task["trace_id"] is task["owner"] is task["id"] is None


@pytest.mark.parametrize("name", ["level", "response_mode", "callback_url", "timeout", "trace_id"])
def test_null_counts_as_absent(name: str) -> None:
    assert parse(changed(**{name: None})) == parse(GOOD)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"queue": "ABSENT"}, "queue"),
        ({"queue": None}, "queue"),
        ({"queue": "  "}, "queue"),
        ({"queue": ""}, "queue"),
        ({"queue": 1}, "queue"),
        ({"queue": "a.b"}, "queue"),
        ({"queue": "a" * 65}, "queue"),
        ({"endpoint": "ABSENT"}, "endpoint"),
        ({"endpoint": ["/v1"]}, "endpoint"),
        ({"endpoint": "v1/x"}, "endpoint"),
        ({"endpoint": "/v1/../admin"}, "endpoint"),
        ({"data": "ABSENT"}, "data"),
        ({"data": None}, "data"),
        ({"data": "text"}, "data"),
        ({"data": []}, "data"),
        ({"level": 2}, "level"),
        ({"level": -1}, "level"),
        ({"level": True}, "level"),
        ({"level": "0"}, "level"),
        ({"level": 0.0}, "level"),
        ({"response_mode": "poll"}, "response_mode"),
        ({"response_mode": 1}, "response_mode"),
        ({"response_mode": ["callback"]}, "response_mode"),
        ({"level": 1, "response_mode": "blocking"}, "level"),
        ({"level": 1, "response_mode": "streaming"}, "level"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -5}, "timeout"),
        ({"timeout": 1.5}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 86_401}, "timeout"),
        ({"timeout": 601, "response_mode": "blocking"}, "timeout"),
        ({"timeout": 10**30}, "timeout"),
        ({"callback_url": "ftp://x/"}, "callback_url"),
        ({"callback_url": 5}, "callback_url"),
        ({"callback_url": "http://user:pass@x/"}, "callback_url"),
        ({"trace_id": 5}, "trace_id"),
        ({"trace_id": "t" * 257}, "trace_id"),
    ],
)
def test_a_wrong_member_is_named(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(changed(**members))
    assert caught.value.field == field
    assert field in caught.value.message
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b'{"queue": "a",}', "line 1 column 14: trailing comma"),
        (b'{\n "queue": nope}', "line 2 column"),
        (b'{"data": NaN}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid UTF-8 at line 1 column 8 (byte 7)"),
        (b'{\n"a": "\xc3"}', "not valid UTF-8 at line 2 column 7"),
        (b'{"a": \xef\xbb\xbf1}', "not valid JSON"),
        (b"[" * 5000, "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
    ],
)
def test_a_body_that_is_no_json_object_says_where(body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert says in caught.value.message
    assert caught.value.field == "body"


def test_a_byte_order_mark_before_the_body_is_passed_over() -> None:
    assert parse(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()) == parse(json.dumps(GOOD).encode())


CLOCKS = {"start_timeout": "start_timeout_ms", "run_timeout": "run_timeout_ms", "result_retention": "retention_ms"}


@pytest.mark.parametrize("name", CLOCKS)
def test_the_other_clocks_are_optional_and_checked(name: str) -> None:
    assert parse(changed())[CLOCKS[name]] == 0  # type: ignore[literal-required]
    assert parse(changed(**{name: 7}))[CLOCKS[name]] == 7_000  # type: ignore[literal-required]
    for wrong in (0, -1, True, 1.5, "7", 10**9, 10**30):
        with pytest.raises(InvalidRequest) as caught:
            parse(changed(**{name: wrong}))
        assert caught.value.field == name
        assert caught.value.message.startswith(name)


def test_time_limits_follow_mode_and_level() -> None:
    assert parse(changed(timeout=600, response_mode="blocking"))["timeout_ms"] == 600_000
    assert parse(changed(response_mode="streaming"))["timeout_ms"] == 300_000
    assert parse(changed(timeout=86_400))["timeout_ms"] == 86_400_000
    assert parse(changed(timeout=14 * 86_400, level=1))["timeout_ms"] == 14 * 86_400_000
    strict = parse_put(json.dumps(changed(response_mode="blocking")).encode(), limits=QueueLimits(max_timeout_s=10))
    assert strict["timeout_ms"] == 10_000


@pytest.mark.parametrize(
    ("mode", "given_", "sent"),
    [
        ("streaming", "ABSENT", True),
        ("streaming", False, True),
        ("streaming", True, True),
        ("blocking", True, False),
        ("blocking", False, False),
        ("blocking", "ABSENT", "ABSENT"),
        ("callback", True, False),
        ("callback", "ABSENT", "ABSENT"),
    ],
)
def test_the_mode_decides_whether_the_upstream_streams(mode: str, given_: object, sent: object) -> None:
    data = {"model": "m"} if given_ == "ABSENT" else {"model": "m", "stream": given_}
    body = json.loads(parse(changed(data=data, response_mode=mode))["data"] or b"")
    assert body.get("stream", "ABSENT") == sent


@pytest.mark.parametrize(("mode", "kept"), [("streaming", True), ("blocking", False), ("callback", False)])
@pytest.mark.parametrize("streams", [{"stream": True}, {}, {"stream": False}])
def test_what_goes_with_a_stream_goes_with_it(mode: str, kept: bool, streams: dict[str, bool]) -> None:
    """Model servers refuse `stream_options` in a request that does not stream."""
    data = {"model": "m", **streams, "stream_options": {"include_usage": True}}
    body = json.loads(parse(changed(data=data, response_mode=mode))["data"] or b"")
    assert ("stream_options" in body) == kept == (body.get("stream") is True)


@pytest.mark.parametrize("number", [b"123456789012345678901234567890", b"0.12345678901234567890", b"1e400"])
def test_long_numbers_survive(number: bytes) -> None:
    data = b'{"seed":%b,"t":0.1}' % number
    task = parse(b'{"queue":"q","endpoint":"/x","response_mode":"streaming","data":' + data + b"}")
    assert task["data"] == data[:-1] + b',"stream":true}'


def test_data_nested_too_deeply_is_refused() -> None:
    deep = b'{"queue":"q","endpoint":"/x","data":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        parse(deep)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text().filter(lambda name: name != "stream"), json_values, max_size=6))
def test_data_is_passed_on_unchanged(data: dict[str, Any]) -> None:
    assert json.loads(parse(changed(data=data))["data"] or b"") == data


@settings(deadline=None)  # the machine may be busy
@given(st.one_of(json_values, st.dictionaries(st.sampled_from([*GOOD, "level", "timeout"]), json_values)))
def test_any_json_is_read_or_refused(body: Any) -> None:
    with suppress(InvalidRequest):
        parse(body)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(body)
