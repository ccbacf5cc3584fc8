"""A load generator that costs little: keep-alive connections, request bytes made beforehand, a bare parser.

python -m bench.load --url http://127.0.0.1:8080/v1/queue/put --body '{"queue": …}' --connections 64 --total 20000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import orjson
import uvloop

OnAnswer = Callable[[int, int, bytes], None]
Requests = bytes | Sequence[bytes] | Callable[[int], bytes]
# A server that refuses connections must not turn the load into a busy loop.
RECONNECT_SECONDS = 0.05


@dataclass(slots=True)
class LoadResult:
    """What a load measured; the arrays are in the order of completion."""

    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of the generator's own process, to see that it is not the bottleneck."""
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Requests that got no answer, by the error's name."""
    latency_ms: array[float] = field(default_factory=lambda: array("d"))
    first_byte_ms: array[float] = field(default_factory=lambda: array("d"))
    """Time to the first byte of a body: of a stream, its first frame."""

    @property
    def answered(self) -> int:
        """Count the requests that got a whole answer."""
        return len(self.latency_ms)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.answered / self.elapsed_s if self.elapsed_s else 0.0

    def as_json(self) -> dict[str, object]:
        """Give the figures that people compare."""
        return {
            "answered": self.answered,
            "elapsed_s": round(self.elapsed_s, 3),
            "rate": round(self.rate, 1),
            "cpu_s": round(self.cpu_s, 3),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors),
            "p50_ms": percentile(self.latency_ms, 50),
            "p90_ms": percentile(self.latency_ms, 90),
            "p99_ms": percentile(self.latency_ms, 99),
            "max_ms": percentile(self.latency_ms, 100),
            "first_byte_p50_ms": percentile(self.first_byte_ms, 50),
            "first_byte_p99_ms": percentile(self.first_byte_ms, 99),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the value that this percentage of the values does not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return round(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 3)


def build_request(
    url: str, body: bytes = b"", *, method: str = "POST", headers: Mapping[str, str] | None = None
) -> bytes:
    """Make the bytes of a request with a JSON body."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    given = {"host": parts.netloc, "content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (given | dict(headers or {})).items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


class _Run:
    """What all connections of one load share: the next index, the result, the end."""

    def __init__(self, requests: Callable[[int], bytes], total: int, on_answer: OnAnswer | None) -> None:
        self.requests = requests
        self.total = total
        self.on_answer = on_answer
        self.result = LoadResult()
        self.sent = 0
        self.settled = 0
        self.stop_at = math.inf
        self.finished = asyncio.Event()

    def take(self) -> int | None:
        """Give the next request's index, or None when there is nothing left to send."""
        if self.sent >= self.total or time.perf_counter() >= self.stop_at:
            self.total = self.sent
            self._check()
            return None
        self.sent += 1
        return self.sent - 1

    def answered(self, index: int, status: int, latency_s: float, first_s: float | None, body: bytes) -> None:
        """Record an answer."""
        self.result.statuses[status] += 1
        self.result.latency_ms.append(latency_s * 1000)
        if first_s is not None:
            self.result.first_byte_ms.append(first_s * 1000)
        if self.on_answer is not None:
            self.on_answer(index, status, body)
        self.settled += 1
        self._check()

    def failed(self, name: str, count: int = 1) -> None:
        """Record requests without an answer, unless the run is over."""
        if not self.finished.is_set() and count:
            self.result.errors[name] += count
            self.settled += count
            self._check()

    def _check(self) -> None:
        if self.settled >= self.total:
            self.finished.set()


class _Client(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again."""

    transport: asyncio.Transport

    def __init__(self, run: _Run, lost: Callable[[], None]) -> None:
        self._run = run
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self._index: int | None = None
        self._sent = 0.0
        self._first: float | None = None
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._index = self._run.take()
        if self._index is None:
            self.transport.close()
            return
        data = self._run.requests(self._index)
        self._first = None
        self._sent = time.perf_counter()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # A callback's own error is wrapped: a fault in `on_answer` must be seen, not counted.
            if error.__context__ is not None:
                raise
            self._fail(type(error).__name__)
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        if self._first is None:
            self._first = time.perf_counter() - self._sent
        if self._run.on_answer is not None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._index is None:
            return
        latency, index, self._index = time.perf_counter() - self._sent, self._index, None
        body = b"".join(self._body)
        self._body.clear()
        self._run.answered(index, self._parser.get_status_code(), latency, self._first, body)
        if self._parser.should_keep_alive():
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(type(exc).__name__ if exc else "ConnectionClosed")
        self._lost()

    def _fail(self, name: str) -> None:
        if self._index is not None:
            self._index = None
            self._run.failed(name)


async def _keep_connected(run: _Run, host: str, port: int) -> None:
    """Hold one connection open for as long as there is something to send."""
    loop = asyncio.get_running_loop()
    while run.sent < run.total:
        lost = asyncio.Event()
        try:
            transport, _ = await loop.create_connection(lambda lost=lost: _Client(run, lost.set), host, port)  # type: ignore[misc]
        except OSError as error:
            if run.take() is not None:
                run.failed(type(error).__name__)
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        try:
            await lost.wait()
        finally:
            transport.abort()


async def run_load(
    url: str,
    requests: Requests,
    *,
    connections: int,
    total: int | None = None,
    duration_s: float | None = None,
    timeout_s: float = 300.0,
    on_answer: OnAnswer | None = None,
) -> LoadResult:
    """Send requests over N connections, each waiting for its answer, until the total or the duration is reached.

    `requests` is one request for all, a list that is gone round, or a function of the request's index. `on_answer` gets
    (index, status, body). What is unanswered after `timeout_s` counts as the error TimeoutError.
    """
    if total is None and duration_s is None:
        raise ValueError("Give run_load a total, a duration_s, or both.")
    run = _Run(_maker(requests), sys.maxsize if total is None else total, on_answer)
    host, port = urlsplit(url).hostname or "127.0.0.1", urlsplit(url).port or 80
    started, cpu = time.perf_counter(), time.process_time()
    if duration_s is not None:
        run.stop_at = started + duration_s
    workers = [
        asyncio.create_task(_keep_connected(run, host, port), name=f"load connection {number}")
        for number in range(min(connections, run.total))
    ]
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(run.finished.wait(), timeout_s)
        run.result.elapsed_s = time.perf_counter() - started
        run.result.cpu_s = time.process_time() - cpu
        run.total = run.sent
        run.failed("TimeoutError", run.sent - run.settled)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return run.result


def _maker(requests: Requests) -> Callable[[int], bytes]:
    if isinstance(requests, bytes):
        return lambda _: requests
    if callable(requests):
        return requests
    return lambda index: requests[index % len(requests)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a load from the command line and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Load one address and print the figures.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--body", default="", help="the JSON body, or @FILE")
    parser.add_argument("--method", default="POST")
    parser.add_argument("--key", help="sent as a bearer key")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--total", type=int)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args(arguments)
    if options.total is None and options.seconds is None:
        parser.error("give --total, --seconds, or both")
    body = Path(options.body[1:]).read_bytes() if options.body.startswith("@") else options.body.encode()
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    request = build_request(options.url, body, method=options.method, headers=headers)
    result = uvloop.run(
        run_load(options.url, request, connections=options.connections, total=options.total, duration_s=options.seconds)
    )
    sys.stdout.write(orjson.dumps(result.as_json(), option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
