"""The load: short and long, streaming, failing and abandoned tasks, in all modes and on both levels."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.fault.campaign.ledger import Accepted, Answer, Ledger, is_unconfirmed

QUEUE = "campaign"
KEY = "hr-local"
HEADERS = {"Authorization": f"Bearer {KEY}"}
LANES = 16
LIMIT_S = 60.0
"""A client that waits longer than this gives up; its task may be accepted and is not counted as acknowledged."""

Sim = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """One sort of task; `leaves` is the share of its run time after which the client goes away."""

    name: str
    weight: int
    mode: str
    sim: Callable[[random.Random], Sim]
    level: int = 0
    leaves: bool = False


def _short(dice: random.Random) -> Sim:
    return {"latency_ms": dice.randrange(30)}


def _long(dice: random.Random) -> Sim:
    # Longer than a commit tick, so that it is claimed, and often longer than a lease is left after a freeze.
    return {"latency_ms": dice.randrange(700, 3_000)}


def _stream(dice: random.Random) -> Sim:
    return {"tokens": dice.randrange(4, 60), "token_ms": dice.randrange(5, 30)}


def _flaky(dice: random.Random) -> Sim:
    return {"latency_ms": dice.randrange(20), "fail_times": dice.randrange(1, 3)}


SHAPES = (
    Shape("short", 6, "callback", _short),
    Shape("short offline", 4, "callback", _short, level=1),
    Shape("long", 3, "callback", _long),
    Shape("long offline", 2, "callback", _long, level=1),
    Shape("blocking", 6, "blocking", _short),
    Shape("blocking, long", 2, "blocking", _long),
    Shape("streaming", 3, "streaming", _stream),
    Shape("fails at first", 2, "callback", _flaky),
    Shape("fails at first, blocking", 1, "blocking", _flaky),
    Shape("refused by the model", 1, "blocking", lambda _: {"status": 400}),
    Shape("fails for good", 1, "callback", lambda _: {"status": 503}),
    Shape("abandoned", 1, "blocking", lambda _: {"latency_ms": 5_000}, leaves=True),
    Shape("abandoned stream", 1, "streaming", lambda _: {"tokens": 100, "token_ms": 50}, leaves=True),
)


def body(shape: Shape, text: str, sim: Sim) -> bytes:
    """Build a put."""
    data = {"model": "sim", "messages": [{"role": "user", "content": text}], "sim": sim}
    put = {
        "queue": QUEUE,
        "endpoint": "/v1/chat/completions",
        "response_mode": shape.mode,
        "level": shape.level,
        "data": data,
    }
    return json.dumps(put).encode()


class Load:
    """Producers that never rest: each sends a task, waits for what its mode promises, pauses, and sends the next."""

    def __init__(self, ledger: Ledger, urls: Callable[[], list[str]], *, seed: int, pause_s: float = 0.4) -> None:
        self._ledger, self._urls, self._seed, self._pause_s = ledger, urls, seed, pause_s
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Send until `stop`, then return when every client has its answer."""
        timeout = aiohttp.ClientTimeout(total=LIMIT_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._lane(session, number) for number in range(LANES)))

    def stop(self) -> None:
        """Send nothing new."""
        self._stop.set()

    async def _lane(self, session: aiohttp.ClientSession, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")
        weights = [shape.weight for shape in SHAPES]
        count = 0
        while not self._stop.is_set():
            [shape] = dice.choices(SHAPES, weights)
            count += 1
            self._ledger.shapes[shape.name] += 1
            put = body(shape, f"question {count} of {number}", shape.sim(dice))
            stay_s = dice.uniform(0.05, 1.5) if shape.leaves else None
            await self._send(session, dice.choice(self._urls() or [""]), shape, put, stay_s)
            try:
                await asyncio.wait_for(self._stop.wait(), dice.expovariate(1 / self._pause_s))
            except TimeoutError:
                continue

    async def _send(
        self, session: aiohttp.ClientSession, url: str, shape: Shape, put: bytes, stay_s: float | None
    ) -> None:
        try:
            async with asyncio.timeout(stay_s):
                async with session.post(f"{url}/v1/queue/put", data=put, headers=HEADERS) as answer:
                    await self._note(answer, shape)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if stay_s is None:
                self._ledger.refused[type(error).__name__] += 1

    async def _note(self, answer: aiohttp.ClientResponse, shape: Shape) -> None:
        """Write an answer down; the header is there as soon as Kafka has the task, the body of a stream much later."""
        task_id = answer.headers.get("x-task-id")
        if task_id is None:
            self._ledger.refused[str(answer.status)] += 1
            self._ledger.without_advice += answer.status == 503 and "Retry-After" not in answer.headers
            return
        accepted = self._ledger.accepted[task_id] = Accepted(shape.name, shape.mode)
        text = await answer.read()
        if is_unconfirmed(answer.status, text):
            del self._ledger.accepted[task_id]
            self._ledger.refused["unconfirmed"] += 1
            return
        if shape.mode != "callback":
            accepted.answer = Answer(answer.status, text, answer.content_type)
