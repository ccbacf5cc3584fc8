"""The relay of a stream: what counts as its end, and what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from obstore.store import MemoryStore

from core.settings.models import Settings
from core.sse import event_of, named
from core.storage.blobs import BlobStore
from core.storage.spool import Spool
from dispatcher.inference import stream_relay as module
from dispatcher.inference.chunk_writer import ChunkWriter
from dispatcher.inference.outcome import Failure, Report, failure_outcome
from dispatcher.inference.stream_relay import Relay
from dispatcher.inference.upstream import CallError
from schemas.codec import CHUNK
from tests.support.clocks import MillisecondClock
from tests.support.dispatcher_doubles import MemoryProducer, work

USAGE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'


class Script:
    """Bytes as an upstream sends them; `then` is raised, or waited for, at the end."""

    def __init__(self, *parts: bytes, then: Exception | asyncio.Event | None = None) -> None:
        self._parts = parts
        self._then = then

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
            await asyncio.sleep(0)
        if isinstance(self._then, Exception):
            raise self._then
        if self._then is not None:
            await self._then.wait()


class Stream:
    """A relay with the producer it writes to."""

    def __init__(self, *, limit_bytes: int = 100_000) -> None:
        self.producer = MemoryProducer()
        self.clock = MillisecondClock(now_ms=5_000)
        writer = ChunkWriter(Settings(), self.producer, work(), worker="w", home=0, clock=self.clock)
        self.writer = writer
        self.blobs = BlobStore(MemoryStore())
        spool = Spool(lambda: self.blobs.writer("results/one", media_type="text/event-stream"), inline_bytes=50_000)
        self.relay = Relay(writer, spool, limit_bytes=limit_bytes)

    async def pump(self, script: Script) -> None:
        async with self.writer:
            await self.relay.forward_stream(aiter(script))

    @property
    def frames(self) -> list[bytes]:
        chunks = [CHUNK.decode(record.value or b"") for _, _, record in self.producer.written]
        return [frame for chunk in chunks for frame in named(chunk["frames"], chunk["events"])]


async def test_a_whole_stream() -> None:
    stream = Stream()
    text = b'data: {"a":1}\n\n' + b"data: " + USAGE + b"\n\ndata: [DONE]\n\n"
    await stream.pump(Script(text[:20], text[20:]))
    assert stream.frames == [b'{"a":1}', USAGE]
    assert stream.relay.text == text
    assert stream.relay.usage == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert stream.relay.started()
    assert stream.relay.chunks == len(stream.producer.written)


async def test_a_finish_reason_is_an_end_too() -> None:
    stream = Stream()
    await stream.pump(Script(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'))
    assert len(stream.frames) == 1


@pytest.mark.parametrize("kind", ["transcript.text.done", "image_generation.completed", "image_edit.completed"])
async def test_the_last_event_of_speech_and_images_is_an_end_too(kind: str) -> None:
    stream = Stream()
    await stream.pump(Script(f'data: {{"type": "{kind}"}}\n\n'.encode()))
    assert len(stream.frames) == 1


async def test_without_either_the_stream_was_cut() -> None:
    stream = Stream()
    with pytest.raises(CallError) as caught:
        await stream.pump(Script(b'data: {"choices":[{"finish_reason":null}]}\n\ndata: {"ch'))
    assert caught.value.failure is Failure.CUT
    assert len(stream.frames) == 1


async def test_a_broken_connection_keeps_what_had_come() -> None:
    stream = Stream()
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.pump(Script(b"data: 1\n\ndata: 2\n\n", then=aiohttp.ClientPayloadError("reset")))
    assert stream.frames == [b"1", b"2"]
    assert stream.relay.chunks == len(stream.producer.written)


ERROR = b'{"error":{"message":"too many","type":"rate_limit_error"}}'
END = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "text",
    [
        b"data: " + ERROR + b"\n\n",
        b"data: " + ERROR + b"\n\n" + END,
        b": hi\n\ndata:\n\ndata: " + ERROR + b"\n\n" + END,
    ],
)
async def test_an_error_in_place_of_the_text_is_not_delivered(text: bytes) -> None:
    stream = Stream()
    with pytest.raises(CallError, match="too many") as caught:
        await stream.pump(Script(text))
    assert caught.value.failure is Failure.REPORTED
    assert caught.value.report == Report(429, ERROR)
    assert not stream.relay.started()


async def test_an_error_after_some_text_is_passed_on_as_the_end() -> None:
    stream = Stream()
    with pytest.raises(CallError, match="too many"):
        await stream.pump(Script(b"data: 1\n\ndata: " + ERROR + b"\n\ndata: 2\n\n" + END))
    assert stream.frames == [b"1", ERROR]
    kept = stream.relay.delivered(failure_outcome(Failure.REPORTED, started_ms=1, report=Report(429, ERROR)))
    assert (kept["status_code"], kept["retriable"], kept["error_code"]) == (429, False, "upstream_error")


@pytest.mark.parametrize("text", [END, b"\n\n: hi\n\n" + END, b"data:\n\ndata: \n\n" + END])
async def test_an_end_mark_alone_is_no_answer(text: bytes) -> None:
    stream = Stream()
    with pytest.raises(CallError) as caught:
        await stream.pump(Script(text))
    assert caught.value.failure is Failure.EMPTY
    assert not stream.relay.started()


async def test_names_of_events_and_strange_json_are_passed_on() -> None:
    stream = Stream()
    half, nan = b'{"text":"\\ud83d"}', b'{"logprob":-Infinity}'
    text = b"event: a\r\ndata: " + half + b"\r\n\r\ndata: " + nan + b"\r\n\r\n" + END
    await stream.pump(Script(text[:30], text[30:]))
    assert stream.frames == [half, b'{"logprob":null}']
    assert [event_of(frame) for frame in stream.frames] == ["a", ""]


async def test_an_upstream_that_never_closes_does_not_hold_a_finished_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.05)
    stream = Stream()
    await asyncio.wait_for(stream.pump(Script(b"data: 1\n\ndata: [DONE]\n\n", then=asyncio.Event())), 60)
    assert stream.frames == [b"1"]


async def test_a_stream_is_bounded() -> None:
    stream = Stream(limit_bytes=50)
    with pytest.raises(CallError) as caught:
        await stream.pump(Script(*[b"data: 1234567890\n\n"] * 10))
    assert caught.value.failure is Failure.TOO_LARGE
    assert stream.frames == [b"1234567890"] * 2


LARGE_FRAME = b'data: {"b64_json":"' + b"A" * 30_000 + b'"}\n\n'


async def test_a_large_text_goes_to_the_object_store() -> None:
    stream = Stream()
    text = LARGE_FRAME * 3 + b"data: [DONE]\n\n"
    await stream.pump(Script(*[text[at : at + 9_000] for at in range(0, len(text), 9_000)]))
    assert stream.relay.text is None
    kept = await stream.relay.finish()
    assert kept.data is None
    assert kept.data_ref is not None
    assert await stream.blobs.get(kept.data_ref) == text


@pytest.mark.parametrize("frames", [1, 3])
async def test_a_stream_that_broke_off_keeps_what_had_come(frames: int) -> None:
    stream = Stream()
    with pytest.raises(CallError):
        await stream.pump(Script(*[LARGE_FRAME] * frames))
    outcome = stream.relay.delivered(failure_outcome(Failure.CUT, started_ms=1))
    assert not outcome["retriable"]
    outcome = await stream.relay.with_body(outcome)
    assert outcome["content_type"] == "text/event-stream"
    if frames == 1:
        assert outcome["body"] == LARGE_FRAME
    else:
        assert outcome["body_ref"] is not None
        assert await stream.blobs.get(outcome["body_ref"]) == LARGE_FRAME * 3


async def test_a_failure_before_the_first_frame_keeps_nothing() -> None:
    stream = Stream()
    with pytest.raises(CallError):
        await stream.pump(Script(b": " + b"x" * 60_000))
    outcome = failure_outcome(Failure.CUT, started_ms=1)
    assert stream.relay.delivered(outcome) == outcome
    assert await stream.relay.with_body(outcome) == outcome


async def test_the_time_of_the_first_frame_is_stored() -> None:
    stream = Stream()
    assert stream.relay.first_token_ms is None
    await stream.pump(Script(b'data: {"a":1}\n\n'[:5], b'data: {"a":1}\n\n'[5:], b"data: [DONE]\n\n"))
    stream.clock.now_ms = 9_000
    stream.writer.add([b'{"b":2}'])
    assert stream.relay.first_token_ms == 5_000
