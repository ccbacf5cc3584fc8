from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.headers import ce_time, find, headers


@given(at_ms=st.integers(0, 4_102_444_799_999))
def test_the_time_is_rfc_3339_to_the_millisecond(at_ms: int) -> None:
    moment = datetime.fromisoformat(ce_time(at_ms).decode())
    assert moment.tzinfo == UTC
    assert moment == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)


def test_the_least_headers() -> None:
    assert headers(kind="task", ce_id="TASK-1", at_ms=1_767_225_600_042) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"TASK-1"),
        ("ce_type", b"io.headrace.task"),
        ("ce_source", b"headrace"),
        ("ce_time", b"2026-01-01T00:00:00.042Z"),
        ("content-type", b"application/avro"),
    ]


def test_all_headers_are_text() -> None:
    full = headers(
        kind="work",
        ce_id="TASK-1",
        at_ms=0,
        source="tests",
        queue="q",
        level=0,
        owner="",
        deadline_ms=0,
        attempt=0,
        traceparent=b"00-aa-bb-01",
    )
    assert dict(full[6:]) == {
        "traceparent": b"00-aa-bb-01",
        "x-queue": b"q",
        "x-level": b"0",
        "x-owner": b"",
        "x-deadline-ms": b"0",
        "x-attempt": b"0",
    }
    assert dict(headers(kind="work", ce_id="", at_ms=0, level=1))["x-level"] == b"1"


def test_the_last_header_of_a_name_counts() -> None:
    assert find([("x-owner", b"forged"), ("other", None), ("x-owner", b"real")], "x-owner") == b"real"
    assert find([("x-owner", None)], "x-owner") is None
    assert find([], "x-owner") is None
    assert find(None, "x-owner") is None
