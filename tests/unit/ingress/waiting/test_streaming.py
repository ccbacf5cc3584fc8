"""The order of chunks, runs and outcomes: what one client gets to see."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.http import sse
from ingress.waiting.blocking import WaitOutcome
from ingress.waiting.streaming import INTERRUPTED, Stream
from schemas.records import Chunk, Result
from tests.support.clocks import SteppingClock
from tests.support.results import result_of
from tests.support.waiting import turns

FRAMES = [b"one", b"two", b"three", b"four"]


def chunk(seq: int, *, attempt: int = 1, worker: str = "w1", frames: list[bytes] | None = None) -> Chunk:
    return {
        "id": "T",
        "attempt": attempt,
        "worker": worker,
        "seq": seq,
        "frames": [FRAMES[seq]] if frames is None else frames,
        "events": [],
    }


def outcome(**changes: Any) -> Result:
    text = sse.frames(FRAMES[: changes.get("chunks", 2)]) + b"data: [DONE]\n\n"
    return result_of("T", **{"mode": "streaming", "content_type": sse.MEDIA_TYPE, "body": text, "chunks": 2} | changes)


async def follow(stream: Stream, *, deadline_s: float = 3_600, silence_s: float = 600) -> list[bytes]:
    async def body(result: Result) -> bytes | None:
        return result["body"]

    got: list[bytes] = []
    deadline_ms = int((time.time() + deadline_s) * 1000)
    async for payloads in stream.follow(deadline_ms=deadline_ms, silence_s=silence_s, body=body):
        got += payloads
    return got


async def test_chunks_then_the_outcome() -> None:
    stream = Stream()
    stream.on_chunk(chunk(0))
    following = asyncio.create_task(follow(stream))
    await asyncio.sleep(0)
    stream.on_chunk(chunk(1))
    stream.on_result(outcome())
    assert await following == FRAMES[:2]
    assert stream.failure is stream.ending is None


async def test_an_outcome_that_overtakes_the_last_chunk_waits_for_it() -> None:
    stream = Stream(settle_s=600)
    stream.on_chunk(chunk(0))
    stream.on_result(outcome(body=None))
    following = asyncio.create_task(follow(stream))
    await turns()
    assert not following.done()
    stream.on_chunk(chunk(1))
    assert await following == FRAMES[:2]
    assert stream.failure is None


async def test_a_lost_chunk_is_taken_from_the_outcome() -> None:
    stream = Stream(settle_s=0.05)
    stream.on_chunk(chunk(0))
    stream.on_result(outcome(chunks=3, body=sse.frames(FRAMES[:3])))
    assert await follow(stream) == FRAMES[:3]
    assert stream.failure is None


async def test_a_gap_is_filled_from_the_outcome_without_waiting() -> None:
    stream = Stream(settle_s=60)
    for seq in (0, 2, 3):
        stream.on_chunk(chunk(seq))
    stream.on_result(outcome(chunks=4))
    assert await follow(stream) == FRAMES


async def test_a_chunk_written_twice_counts_once() -> None:
    stream = Stream()
    for seq in (0, 0, 1, 1):
        stream.on_chunk(chunk(seq))
    stream.on_result(outcome())
    assert await follow(stream) == FRAMES[:2]


async def test_before_the_first_delivery_another_run_takes_over() -> None:
    stream = Stream()
    stream.on_chunk(chunk(0, frames=[b"old"]))
    stream.on_chunk(chunk(0, attempt=2, worker="w2"))
    stream.on_chunk(chunk(1, frames=[b"late"]))  # the first run is not dead yet
    stream.on_chunk(chunk(1, attempt=2, worker="w2"))
    stream.on_result(outcome(attempt=2, worker="w2"))
    assert await follow(stream) == FRAMES[:2]


async def test_after_the_first_delivery_another_run_ends_the_stream() -> None:
    stream = Stream()
    stream.on_chunk(chunk(0))
    following = asyncio.create_task(follow(stream))
    await turns()
    stream.on_chunk(chunk(0, attempt=2, worker="w2"))
    assert await following == FRAMES[:1]
    assert stream.failure == INTERRUPTED


async def test_an_outcome_of_another_run_ends_a_stream_that_has_begun() -> None:
    stream = Stream()
    stream.on_chunk(chunk(0))
    following = asyncio.create_task(follow(stream))
    await turns()
    stream.on_result(outcome(attempt=2, worker="w2"))
    assert await following == FRAMES[:1]
    assert stream.failure == INTERRUPTED


async def test_once_the_outcome_is_known_no_other_run_counts() -> None:
    stream = Stream()
    stream.on_result(outcome(attempt=2, worker="w2"))
    stream.on_chunk(chunk(0, attempt=2, worker="w3", frames=[b"wrong"]))
    stream.on_chunk(chunk(0, attempt=2, worker="w2"))
    stream.on_chunk(chunk(1, attempt=2, worker="w2"))
    assert await follow(stream) == FRAMES[:2]


async def test_a_slow_client_gets_the_rest_from_the_outcome() -> None:
    stream = Stream(buffer_bytes=7)
    for seq in range(4):
        stream.on_chunk(chunk(seq))
    stream.on_result(outcome(chunks=4))
    assert await follow(stream) == FRAMES
    assert stream.failure is None


async def test_a_failure_comes_after_the_chunks() -> None:
    stream = Stream()
    stream.on_chunk(chunk(0))
    failed = outcome(
        state="failed", status_code=502, error_code="upstream_cut", error_message="cut off", chunks=1, body=None
    )
    stream.on_result(failed)
    assert await follow(stream) == FRAMES[:1]
    assert stream.failure is not None
    assert (stream.failure.message, stream.failure.code) == ("cut off", "upstream_cut")
    assert not stream.error_sent


async def test_an_error_that_the_upstream_told_is_not_told_again() -> None:
    stream = Stream()
    stream.on_chunk(chunk(0, frames=[b'{"error":{"message":"overloaded"}}']))
    stream.on_result(outcome(state="failed", error_code="upstream_error", chunks=1))
    await follow(stream)
    assert stream.failure is not None
    assert stream.error_sent


async def test_an_answer_in_one_piece_becomes_one_frame() -> None:
    stream = Stream()
    stream.on_result(outcome(chunks=0, body=b'{"whole":1}', content_type="application/json"))
    assert await follow(stream) == [b'{"whole":1}']
    assert stream.failure is None


async def test_silence_and_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.waiting.streaming.time", SteppingClock(20))  # three silences to the minute
    stream = Stream()
    silences = 0

    async def body(_: Result) -> bytes | None:
        return None

    deadline_ms = int((time.time() + 58) * 1000)  # and a grace of 2 s
    async for payloads in stream.follow(deadline_ms=deadline_ms, silence_s=0.001, body=body):
        assert payloads == []
        silences += 1
    assert silences in (1, 2)
    assert stream.ending is WaitOutcome.TIMEOUT


@pytest.mark.parametrize("how", ["on_gone", "on_shutdown"])
async def test_leaving_ends_it_at_once(how: str) -> None:
    stream = Stream()
    following = asyncio.create_task(follow(stream))
    await asyncio.sleep(0)
    getattr(stream, how)()
    assert await following == []
    assert stream.ending is (WaitOutcome.GONE if how == "on_gone" else WaitOutcome.SHUTDOWN)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, "result"]), unique=True, min_size=5, max_size=5),
    st.lists(st.integers(0, 4), max_size=5),
    st.integers(1, 20),
)
def test_whatever_arrives_in_whatever_order_the_text_is_whole(order: list[Any], pauses: list[int], room: int) -> None:
    async def run() -> None:
        stream = Stream(buffer_bytes=room, settle_s=0.001)
        following = asyncio.create_task(follow(stream))
        for step, what in enumerate(order):
            if step in pauses:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if what == "result":
                stream.on_result(outcome(chunks=4))
            else:
                stream.on_chunk(chunk(what))
        assert await following == FRAMES
        assert stream.failure is None

    asyncio.run(run())
