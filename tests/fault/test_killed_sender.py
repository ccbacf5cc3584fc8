"""kill -9 of the webhook sender at any point loses no delivery: a real receiver keeps the ids that it has accepted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import orjson

from bench.wire import Exchange, RawServer, head
from tests.support.dispatcher_probe import DispatcherProbe, dispatcher_probe
from tests.support.roles import Role, settings_for
from tests.support.waiting import eventually_async
from tests.support.webhook_probe import DeliveryRows

TASKS, KILLS = 300, 5


class Flapping(RawServer):
    """Accepts about a third of the calls; the others fail in every way, and some are slow."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: Counter[str] = Counter()
        self.calls = 0
        self._dice = random.Random(7)

    def handle(self, exchange: Exchange) -> None:
        self.calls += 1
        match self._dice.randrange(6):
            case 0:
                exchange.reset()
            case 1:
                exchange.finish(head(503, "text/plain", 2) + b"no")
            case 2:
                exchange.finish(head(500, "text/plain", 2) + b"no")
            case 3:
                exchange.spawn(self._late(exchange), name="late")
            case _:
                self._accept(exchange)

    def called_since(self, calls: int) -> bool:
        """Tell whether there was a call since there were so many."""
        return self.calls > calls

    def _accept(self, exchange: Exchange) -> None:
        self.accepted[orjson.loads(exchange.request.body)["request_id"]] += 1
        exchange.finish(head(200, "text/plain", 2) + b"ok")

    async def _late(self, exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        self._accept(exchange)


async def test_kill_9_at_any_point_loses_no_delivery(kafka: str, tmp_path: Path) -> None:
    prefix = f"killed-sender-{time.time_ns()}."
    settings, env = settings_for(
        kafka,
        tmp_path,
        prefix,
        dispatcher__component="webhooks",
        webhooks__retry_delays=[0.2, 0.5, 1, 1, 6, *[0.5] * 60],
    )
    sender = Role("dispatcher", env=env, log=tmp_path / "sender.log")
    dice = random.Random(4)
    async with dispatcher_probe(settings) as probe, Flapping() as receiver:
        rows = DeliveryRows(settings)
        await rows.tail.open()
        try:
            sender.start()
            load = asyncio.create_task(put(probe, receiver.root))
            for number in range(KILLS):
                calls = receiver.calls
                await eventually_async(partial(receiver.called_since, calls), what="a call of the new one")
                await asyncio.sleep(dice.uniform(0, 2) if number % 2 else dice.uniform(0, 0.2))
                await asyncio.to_thread(sender.kill)
                sender.start()
            ids = await load
            await eventually_async(
                lambda: all(receiver.accepted[one] for one in ids), within_s=120, what="every delivery"
            )
            await eventually_async(lambda: all(rows.state(one) == "delivered" for one in ids), what="every row")
        finally:
            await asyncio.to_thread(sender.kill)
            await rows.tail.close()
        assert probe.dead_letters == {}


async def put(probe: DispatcherProbe, root: str) -> list[str]:
    """Write the results over some seconds, so that every kill meets some that are new."""
    ids = []
    for number in range(TASKS):
        ids.append(await probe.result(f"{root}/callback"))
        if number % 20 == 0:
            await asyncio.sleep(0.3)
    return ids
