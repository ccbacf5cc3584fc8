"""A receiver of callbacks that behaves as its path says, and keeps what it was sent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import orjson
import pytest

from bench.wire import Exchange, RawServer, head


class Call(NamedTuple):
    """One request."""

    headers: dict[str, str]
    body: bytes


class Receiver(RawServer):
    """Answers by path: /200, /500-then-200, /hang and so on; keeps what it was sent.

    What hangs is answered once `go_on` is set. `down` makes it break every connection off, as a host does whose process
    is away.
    """

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self.got: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.headers: dict[str, str] = {}
        self.holding = 0
        """How many calls have hung."""
        self.go_on = asyncio.Event()
        self.broken_off = 0
        self.down = False

    def handle(self, exchange: Exchange) -> None:
        if self.down:
            self.broken_off += 1
            exchange.reset()
            return
        document = orjson.loads(exchange.request.body)
        about = document["request_id"] if "request_id" in document else document["data"]["id"]
        seen = self.got[about]
        seen.append(document)
        self.headers = exchange.request.headers
        self.calls[about].append(Call(exchange.request.headers, exchange.request.body))
        wanted = exchange.request.path.strip("/").split("-then-")
        self._answer(exchange, wanted[min(len(seen), len(wanted)) - 1])

    def _answer(self, exchange: Exchange, answer: str) -> None:
        match answer:
            case "hang":
                self.holding += 1
                exchange.spawn(self._hang(exchange), name="hang")
            case "reset":
                exchange.reset()
            case "nonsense":
                exchange.write(b"\x16\x03\x01 no http\r\n\r\n")
                exchange.reset()
            case "lie":  # 200 with a longer body announced than sent, and then nothing
                exchange.write(head(200, "text/plain", 1_000_000) + b"ok")
            case "flood":  # 200 with an endless body
                exchange.spawn(_flood(exchange), name="flood")
            case "busy":
                exchange.finish(head(429, "text/plain", 2, extra="retry-after: 1\r\n") + b"no")
            case _:
                extra = f"location: {self.root}/200\r\n" if answer.startswith("3") else ""
                exchange.finish(head(int(answer), "text/plain", 2, extra=extra) + b"ok")

    async def _hang(self, exchange: Exchange) -> None:
        await self.go_on.wait()
        exchange.finish(head(200, "text/plain", 2) + b"ok")


async def _flood(exchange: Exchange) -> None:
    exchange.write(head(200, "text/plain", 10_000_000_000))
    while True:
        exchange.write(b"x" * 65_536)
        await exchange.drain()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver: a host of its own for each test."""
    async with Receiver() as made:
        yield made
