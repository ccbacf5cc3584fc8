from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.callback_url import MAX_URL
from schemas.validation import MAX_TIMEOUT_MS, Invalid, check_callback, check_endpoint, check_queue, check_task
from tests.support.records import task


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"level": 1},
        {"level": 1, "mode": "batch"},
        {"mode": "blocking"},
        {"mode": "streaming"},
        {"data": "{}"},
        {"data": None, "data_ref": {"uri": "u", "size": 1, "sha256": ""}},
        {"callback_url": "https://example.com:8443/hook?x=1"},
        {"timeout_ms": MAX_TIMEOUT_MS[0]},
        {"level": 1, "timeout_ms": MAX_TIMEOUT_MS[1]},
        {"trace_id": "t" * 256},
        {"callback_events": ["start", "progress", "completed", "failed", "cancelled", "expired"]},
    ],
)
def test_a_good_task_passes(members: dict[str, Any]) -> None:
    check_task(task(**members))


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("queue", {"queue": ""}),
        ("queue", {"queue": "a.b"}),
        ("queue", {"queue": "q" * 65}),
        ("queue", {"queue": "q\n"}),
        ("level", {"level": 2}),
        ("level", {"level": -1}),
        ("level", {"level": 1, "mode": "blocking"}),
        ("level", {"level": 1, "mode": "streaming"}),
        ("endpoint", {"endpoint": "v1/chat"}),
        ("endpoint", {"endpoint": "http://elsewhere/v1"}),
        ("endpoint", {"endpoint": "/v1/../admin"}),
        ("endpoint", {"endpoint": "//elsewhere/v1"}),
        ("endpoint", {"endpoint": "/v1/x?y=1"}),
        ("endpoint", {"endpoint": "/v1/x\r\nHost: y"}),
        ("data", {"data": None}),
        ("data", {"data": b""}),
        ("data", {"data": ""}),
        ("timeout", {"timeout_ms": -1}),
        ("timeout", {"timeout_ms": MAX_TIMEOUT_MS[0] + 1}),
        ("callback_url", {"callback_url": "ftp://example.com"}),
        ("callback_events", {"callback_events": ["done"]}),
        ("callback_events", {"callback_events": ["start"] * 7}),
        ("trace_id", {"trace_id": "t" * 257}),
        ("idempotency_key", {"idempotency_key": "k" * 257}),
        ("model", {"model": "m" * 257}),
    ],
)
def test_a_bad_task_is_refused_by_the_name_of_its_field(field: str, members: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        check_task(task(**members))
    assert refused.value.field == field
    assert field in refused.value.message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user:secret@example.com/",
        "http://@example.com/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://example.com:port/",
        "http://[::1/",
        "http://example.com/a b",
        "http://example.com/\r\nX: y",
        "\thttp://example.com/",
        "http://example.com/" + "x" * MAX_URL,
    ],
)
def test_a_callback_that_could_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_callback(url)
    assert refused.value.field == "callback_url"


@given(text=st.text())
def test_any_text_passes_or_is_refused(text: str) -> None:
    for check in (check_queue, check_endpoint, check_callback):
        with suppress(Invalid):
            check(text)
