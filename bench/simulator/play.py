"""Send an answer the way a behaviour says, faults included."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from bench.simulator.answers import JSON, Answer, error, whole
from bench.simulator.behaviour import Behaviour, Fault
from bench.wire import LAST_CHUNK, Exchange, chunk, head

FILLER = b"x" * 65_536
# Bytes that were sent must reach the client before the RST that follows: it may overtake nothing on loopback, but the
# client's own event loop should have read them first.
RESET_DELAY_SECONDS = 0.02
ERROR_FRAME = error(500, "The simulator broke the stream.", code="sim_broken").body
NOT_UTF8 = b"\xff\xfe\x80 caf\xe9"


def quick(answer: Answer) -> bytes | None:
    """Give the complete bytes of a correct answer, or None when it is too big to be built at once."""
    if answer.padding > len(FILLER):
        return None
    if answer.frames:
        start = head(answer.status, answer.content_type, None, extra=answer.headers)
        return b"".join([start, *map(chunk, answer.frames), LAST_CHUNK])
    body = whole(answer)
    return head(answer.status, answer.content_type, len(body), extra=answer.headers) + body


async def play(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    """Answer after the latency, correctly or with the fault."""
    delay = behaviour.latency_ms
    if not answer.frames and answer.status == 200:
        delay += behaviour.token_ms * behaviour.tokens
    await asyncio.sleep(delay / 1000)
    await (FAULTS[behaviour.fault] if behaviour.fault else _right)(exchange, behaviour, answer)


async def _right(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    if not answer.frames or not behaviour.token_ms:
        await _all_at_once(exchange, answer)
        return
    _start(exchange, answer)
    await _paced(exchange, behaviour, answer.frames)
    exchange.finish(LAST_CHUNK)


async def _all_at_once(exchange: Exchange, answer: Answer) -> None:
    data = quick(answer)
    if data is not None:
        exchange.write(data)
    else:
        size = len(answer.body) + answer.padding
        exchange.write(head(answer.status, answer.content_type, size, extra=answer.headers) + answer.body[:-2])
        left = answer.padding
        while left:
            exchange.write(FILLER[:left])
            left -= min(left, len(FILLER))
            await exchange.drain()
        exchange.write(answer.body[-2:])
    await exchange.drain()
    exchange.finish()


def _start(exchange: Exchange, answer: Answer) -> None:
    exchange.write(head(answer.status, answer.content_type, None, extra=answer.headers))


async def _paced(exchange: Exchange, behaviour: Behaviour, frames: Iterable[bytes]) -> None:
    """Write frames at fixed times from now, so that slow writes do not add up."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for index, frame in enumerate(frames):
        if behaviour.token_ms and index:
            await asyncio.sleep(started + index * behaviour.token_ms / 1000 - loop.time())
        exchange.write(chunk(frame))
        await exchange.drain()


async def _hang(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:  # noqa: ARG001 - one signature for all
    await asyncio.Event().wait()


async def _reset(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:  # noqa: ARG001
    exchange.reset()


async def _reset_after_headers(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:  # noqa: ARG001
    _start(exchange, answer)
    await asyncio.sleep(RESET_DELAY_SECONDS)
    exchange.reset()


async def _half_body(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    if answer.frames:
        _start(exchange, answer)
        await _paced(exchange, behaviour, answer.frames[: behaviour.after])
        frame = chunk(answer.frames[min(behaviour.after, len(answer.frames) - 1)])
        exchange.write(frame[: len(frame) // 2])
    else:
        body = whole(answer)
        exchange.write(head(answer.status, answer.content_type, len(body)) + body[: len(body) // 2])
    await exchange.drain()
    exchange.hang_up()


async def _cut(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    if not answer.frames:
        await _half_body(exchange, behaviour, answer)
        return
    _start(exchange, answer)
    await _paced(exchange, behaviour, answer.frames[: behaviour.after])
    exchange.hang_up()


async def _length_short(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:  # noqa: ARG001
    body = whole(answer)
    exchange.finish(head(answer.status, answer.content_type, max(0, len(body) - 10)) + body)


async def _length_long(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    body = whole(answer)
    exchange.write(head(answer.status, answer.content_type, len(body) + 10) + body)
    await _hang(exchange, behaviour, answer)


async def _invalid_json(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    if answer.frames:
        await _with_odd_frame(exchange, behaviour, answer, answer.frames[0][: len(answer.frames[0]) // 2] + b"\n\n")
        return
    body = answer.body[: len(answer.body) * 2 // 3]
    exchange.finish(head(200, JSON, len(body)) + body)


async def _non_utf8(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    odd = b'{"id":"chatcmpl-odd","choices":[{"index":0,"text":"' + NOT_UTF8 + b'"}]}'
    if answer.frames:
        await _with_odd_frame(exchange, behaviour, answer, b"data: " + odd + b"\n\n")
        return
    exchange.finish(head(200, JSON, len(odd)) + odd)


async def _with_odd_frame(exchange: Exchange, behaviour: Behaviour, answer: Answer, odd: bytes) -> None:
    _start(exchange, answer)
    good = answer.frames
    await _paced(exchange, behaviour, [*good[: behaviour.after], odd, *good[behaviour.after :]])
    exchange.finish(LAST_CHUNK)


async def _endless(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    """Never end: the second frame again and again, or a JSON string that does not close."""
    _start(exchange, answer)
    first, again = answer.frames[:2] if answer.frames else (b'{"endless":"', FILLER[:1024])
    exchange.write(chunk(first))
    while True:
        exchange.write(chunk(again))
        await exchange.drain()
        await asyncio.sleep(max(behaviour.token_ms, 1.0) / 1000)


async def _no_done(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    if not answer.frames:
        await _all_at_once(exchange, answer)
        return
    _start(exchange, answer)
    await _paced(exchange, behaviour, answer.frames[:-1])
    exchange.finish(LAST_CHUNK)


async def _error_frame(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    if not answer.frames:
        exchange.finish(head(200, JSON, len(ERROR_FRAME)) + ERROR_FRAME)
        return
    _start(exchange, answer)
    await _paced(exchange, behaviour, [*answer.frames[: behaviour.after], b"data: " + ERROR_FRAME + b"\n\n"])
    exchange.finish(LAST_CHUNK)


async def _slow_loris(exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
    body = whole(answer)
    *most, last = head(answer.status, answer.content_type, len(body)) + body
    for byte in most:
        exchange.write(bytes([byte]))
        await asyncio.sleep(behaviour.byte_ms / 1000)
    exchange.finish(bytes([last]))


FAULTS: dict[Fault, Callable[[Exchange, Behaviour, Answer], Awaitable[None]]] = {
    Fault.HANG: _hang,
    Fault.RESET: _reset,
    Fault.RESET_AFTER_HEADERS: _reset_after_headers,
    Fault.HALF_BODY: _half_body,
    Fault.LENGTH_SHORT: _length_short,
    Fault.LENGTH_LONG: _length_long,
    Fault.INVALID_JSON: _invalid_json,
    Fault.NON_UTF8: _non_utf8,
    Fault.ENDLESS: _endless,
    Fault.NO_DONE: _no_done,
    Fault.CUT: _cut,
    Fault.ERROR_FRAME: _error_frame,
    Fault.SLOW_LORIS: _slow_loris,
    Fault.REDIRECT: _right,
}
