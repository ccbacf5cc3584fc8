"""What model servers really send, over real sockets: no failure is called a success, and no good text is lost."""

from __future__ import annotations

from typing import Any

import pytest

from core.settings.models import Settings
from core.sse import event_of, named, payloads
from core.storage.blobs import open_blobs
from schemas.records import Mode, Outcome
from tests.support import raw_upstream
from tests.support.dispatcher_probe import DispatcherProbe
from tests.support.raw_upstream import TEN_MEGABYTES, raw
from tests.support.waiting import eventually_async

upstream = raw_upstream.raw_upstream
pytestmark = pytest.mark.usefixtures("dispatcher")

STREAM, JSON = "text/event-stream", "application/json"
END = b"data: [DONE]\n\n"
ONE = b'{"choices":[{"delta":{"content":"one"}}]}'
LAST = b'{"choices":[{"delta":{},"finish_reason":"stop"}]}'
BUSY = b'{"error":{"message":"too many requests","type":"rate_limit_error"}}'
LARGE = b'{"b64_json":"' + TEN_MEGABYTES + b'"}'


def data(*frames: bytes) -> bytes:
    return b"".join(b"data: " + frame + b"\n\n" for frame in frames)


FAILURES: list[tuple[Mode, dict[str, Any], int, str, bool, str]] = [
    ("streaming", raw(data(BUSY) + END, STREAM), 429, "upstream_error", True, "too many requests"),
    ("streaming", raw(data(ONE, BUSY) + END, STREAM), 429, "upstream_error", False, "too many requests"),
    ("streaming", raw(BUSY, JSON), 429, "upstream_error", True, "too many requests"),
    ("streaming", raw(BUSY, STREAM), 429, "upstream_error", True, "too many requests"),
    ("streaming", raw(b"event: error\ndata: out of memory\n\n", STREAM), 502, "upstream_error", True, "out of memory"),
    ("streaming", raw(END, STREAM), 502, "upstream_empty", True, "has no content"),
    ("streaming", raw(b"", STREAM), 502, "upstream_cut", True, "end mark"),
    ("blocking", raw(BUSY, JSON), 429, "upstream_error", True, "too many requests"),
    ("blocking", raw(b'{"object":"error","message":"gone","code":404}', JSON), 404, "upstream_error", False, "gone"),
    ("blocking", raw(data(BUSY) + END, STREAM), 429, "upstream_error", True, "too many requests"),
    ("blocking", raw(b"", JSON), 502, "upstream_empty", True, "has no content"),
    ("blocking", raw(b'{"detail":"no such model"}', JSON, status=404), 404, "upstream_error", False, "no such model"),
    ("blocking", raw(b'{"message":"bad"}', JSON, status=400), 400, "upstream_error", False, "400: bad"),
    ("streaming", raw(b'{"error":"bad"}', JSON, status=400), 400, "upstream_error", False, "400: bad"),
    ("blocking", raw(b"at http://10.1.2.3:8/x", "text/plain", status=500), 500, "upstream_error", True, "at [address]"),
    ("blocking", raw(b"x", JSON, status=500, headers="retry-after: 1e308\r\n"), 500, "upstream_error", True, "500: x"),
]


async def test_no_failure_is_called_a_success(probe: DispatcherProbe) -> None:
    ids = [await probe.submit(mode=mode, sim=sim) for mode, sim, *_ in FAILURES]
    for task_id, (_, _, status, code, retriable, said) in zip(ids, FAILURES, strict=True):
        outcome = await probe.outcome(task_id)
        got = (outcome["status_code"], outcome["error_code"], outcome["retriable"])
        assert got == (status, code, retriable), (said, outcome["error_message"])
        assert said in (outcome["error_message"] or "")
        assert b"10.1.2.3" not in (outcome["body"] or b"")


async def frames_of(probe: DispatcherProbe, task_id: str, outcome: Outcome) -> list[bytes]:
    """Wait for the chunks that an outcome counts, which travel on another topic; returns their frames."""
    await eventually_async(lambda: len(probe.chunks[task_id]) == outcome["chunks"], what="the chunks")
    return [one for chunk in probe.chunks[task_id] for one in named(chunk["frames"], chunk["events"])]


STREAMS: list[tuple[str | None, bytes, list[bytes]]] = [
    ("Text/Event-Stream", data(ONE, LAST) + END, [ONE, LAST]),
    (None, data(ONE, LAST) + END, [ONE, LAST]),
    ("text/plain; charset=utf-8", data(ONE, LAST) + END, [ONE, LAST]),
    (STREAM, b"data:\n\n: comment\n\ndata: \n\n" + data(ONE) + b"data:\n\n" + data(LAST) + END, [ONE, LAST]),
    (STREAM, (data(ONE, LAST) + END).replace(b"\n", b"\r\n"), [ONE, LAST]),
    (STREAM, data(b'{"t":"\\ud83d"}', b'{"t":"\\ude00"}') + END, [b'{"t":"\\ud83d"}', b'{"t":"\\ude00"}']),
    (STREAM, data(b'{"logprob":-Infinity}', b'{"logprob":NaN}') + END, [b'{"logprob":null}'] * 2),
]


async def test_streams_as_servers_write_them_come_through(probe: DispatcherProbe) -> None:
    ids = [await probe.submit(mode="streaming", sim=raw(body, kind)) for kind, body, _ in STREAMS]
    for task_id, (kind, _, frames) in zip(ids, STREAMS, strict=True):
        outcome = await probe.outcome(task_id)
        assert (outcome["status_code"], outcome["error_code"]) == (200, None), (kind, outcome["error_message"])
        assert [bytes(frame) for frame in await frames_of(probe, task_id, outcome)] == frames


async def test_event_names_are_preserved(probe: DispatcherProbe) -> None:
    text = b"event: response.created\n" + data(b'{"n":1}') + data(b'{"n":2}') + END
    task_id = await probe.submit(mode="streaming", sim=raw(text, STREAM))
    outcome = await probe.outcome(task_id)
    assert outcome["error_code"] is None
    frames = await frames_of(probe, task_id, outcome)
    assert [(event_of(frame), bytes(frame)) for frame in frames] == [
        ("response.created", b'{"n":1}'),
        ("", b'{"n":2}'),
    ]


async def test_a_frame_of_ten_megabytes_is_stored_whole(probe: DispatcherProbe, settings: Settings) -> None:
    task_id = await probe.submit(mode="streaming", sim=raw(data(ONE, LARGE) + END, STREAM))
    outcome = await probe.outcome(task_id)
    assert (outcome["status_code"], outcome["error_code"]) == (200, None)
    assert outcome["body_ref"] is not None
    text = await open_blobs(settings).get(outcome["body_ref"])
    assert payloads(text) == [ONE, LARGE.replace(TEN_MEGABYTES, b"A" * 10_000_000)]


@pytest.mark.parametrize(("kind", "body"), [("audio/mpeg", bytes(range(256))), (JSON, b'{\n "choices": []}')])
async def test_a_whole_response_instead_of_a_stream_is_stored_unchanged(
    probe: DispatcherProbe, kind: str, body: bytes
) -> None:
    outcome = await probe.outcome(await probe.submit(mode="streaming", sim=raw(body, kind)))
    assert (outcome["error_code"], outcome["chunks"]) == (None, 0)
    assert (outcome["content_type"], outcome["body"]) == (kind, body)
