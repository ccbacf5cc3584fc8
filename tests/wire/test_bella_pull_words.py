"""What the bodies of workers' requests mean, without a request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InvalidRequest
from ingress.api.bella.pull_serialization import parse_complete, parse_register, parse_take
from ingress.api.bella.serialization import state
from ingress.pull.strategies import TakeRequest, lease_ms
from ingress.read_model.task_snapshot import from_status
from tests.support.bella import row_of
from tests.support.records import task


def test_what_a_worker_completed_is_succeeded_as_in_bella() -> None:
    for state_ in ("failed", "expired"):
        row = row_of(task(id="T"), 0, state=state_, error_code="worker_error", status_code=500)
        assert state(from_status(row)) == "succeeded"


@pytest.mark.parametrize(
    ("asked_ms", "run_timeout_ms", "held_ms"), [(7_000, 5_000, 7_000), (0, 5_000, 5_000), (0, 0, 60_000)]
)
def test_a_task_is_held_as_asked_else_as_it_may_run_else_until_its_deadline(
    asked_ms: int, run_timeout_ms: int, held_ms: int
) -> None:
    row = row_of(task(id="T"), 0, run_timeout_ms=run_timeout_ms, deadline_ms=100_000)
    assert lease_ms(TakeRequest(queues=(), lease_ms=asked_ms), row, now_ms=40_000) == held_ms


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
members = st.dictionaries(
    st.sampled_from(
        (
            "queue",
            "endpoint",
            "served_by",
            "queues",
            "size",
            "strategy",
            "process_timeout",
            "process_max_retries",
            "min_age_seconds",
            "status_code",
            "request_id",
            "body",
            "attempt",
        )
    ),
    anything | st.sampled_from((["chat:0"], "chat", "/v1/x", "fifo", "workers", 1, 200, "200")),
)


@settings(deadline=None)  # the machine may be busy
@given(members | anything, st.sampled_from((parse_register, parse_take, parse_complete)))
def test_whatever_is_sent_is_read_or_refused(value: Any, parse: Callable[[bytes], object]) -> None:
    with contextlib.suppress(InvalidRequest):  # every other error would be a 500
        parse(json.dumps(value).encode())


def test_take_has_bellas_defaults() -> None:
    order = parse_take(b'{"queues": ["a:0", "b:1", "a:0"], "worker": {"id": "w"}, "endpoint": "/x"}')
    assert [str(lane) for lane in order.queues] == ["a:0", "b:1"]
    assert order[1:] == (1, "fifo", 0, 0, None)
    assert parse_take(b'{"queues": ["a:0"], "process_max_retries": 0}').retries == 0


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('"body": "!", "result_encoding": "base64"', "body"),
        ('"body": {}, "result_encoding": "base64"', "body"),
        ('"body": "", "result_encoding": "hex"', "result_encoding"),
        ('"body": "", "result_encoding": "base64", "result_content_type": "sound"', "result_content_type"),
        ('"body": "", "result_encoding": "base64", "result_content_type": "a/b\\r\\nx: y"', "result_content_type"),
    ],
)
def test_bytes_that_are_none_are_refused(more: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_complete(f"{{{more}}}".encode())
    assert caught.value.field == field


def test_a_text_is_passed_on_as_text_and_anything_else_as_json() -> None:
    assert parse_complete(b'{"body": "caf\\u00e9"}')[:3] == (200, "café".encode(), "text/plain; charset=utf-8")
    assert parse_complete(b'{"body": [1, null]}')[:3] == (200, b"[1,null]", "application/json")
    assert parse_complete(b'{"body": false}').body == b"false"
    sound = b'{"body": "//uQ", "result_encoding": "base64", "result_content_type": "audio/mpeg"}'
    assert parse_complete(sound)[:3] == (200, b"\xff\xfb\x90", "audio/mpeg")
    assert [parse_complete(b'{"body": %b}' % empty).body for empty in (b'""', b"{}", b"[]")] == [b"", b"{}", b"[]"]
