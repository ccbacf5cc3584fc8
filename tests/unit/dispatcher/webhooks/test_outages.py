"""Receivers that are down, flapping, slow or lying: real sockets for the calls, virtual time for the ladder."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from standardwebhooks import Webhook

from core.settings import Settings
from dispatcher.events import Addressed
from dispatcher.webhooks.courier import Courier
from dispatcher.webhooks.disabled import Disabled
from dispatcher.webhooks.hands import Idle
from dispatcher.webhooks.hosts import Hosts
from dispatcher.webhooks.post import Poster
from dispatcher.webhooks.records import of_result
from schemas import topics
from schemas.callback_url import Policy
from schemas.codec import DELIVERY
from schemas.records import Delivery, Result
from tests.support.receiver import Receiver
from tests.unit.dispatcher.webhooks.test_payload import result

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TEN_MINUTES_MS = 600_000
_ids = count()


class World:
    """Kafka and time, in memory: records are kept by topic, and time goes on to when the next delivery is due."""

    def __init__(self, **hooks: Any) -> None:
        self.settings = Settings.model_validate({"webhooks": {"secret": [SECRET], "timeout_s": 0.5, **hooks}})
        self.now_ms = 1_800_000_000_000
        self.waiting: list[Delivery] = []
        self.rows: dict[str, Delivery] = {}
        self.letters: list[bytes] = []
        dice = random.Random(5)
        self.poster = Poster(self.settings.webhooks, Policy(private=True))
        self.disabled = Disabled(self.settings, name="test")
        self.courier = Courier(
            self.settings, poster=self.poster, bodies=self, disabled=self.disabled, outbox=self,  # type: ignore[arg-type]
            hosts=Hosts(self.settings.webhooks.per_host, clock=lambda: self.now_ms / 1000), idle=Idle(),
            clock=lambda: self.now_ms, dice=dice.random,
        )  # fmt: skip

    async def of(self, delivery: Delivery, _: Result | None) -> bytes:
        """Stand in for the stored result."""
        return b'{"status_code":200,"request_id":"%b","body":{}}' % delivery["task_id"].encode()

    async def put_all(self, items: Iterable[Addressed]) -> bool:
        """Stand in for Kafka."""
        for item in items:
            name = item.address.topic.removeprefix(self.settings.kafka.topic_prefix)
            if name.startswith("webhooks.retry."):
                self.waiting.append(DELIVERY.decode(item.record.value or b""))
            elif name == topics.DELIVERIES:
                row = DELIVERY.decode(item.record.value or b"")
                self.rows[row["task_id"]] = row
            elif name == topics.DISABLED:
                marks: Any = [item.record]
                self.disabled.fold(None, marks)  # type: ignore[arg-type]
            else:
                self.letters.append(item.record.key or b"")
        return True

    def new(self, url: str, **changes: Any) -> Delivery:
        """Begin a delivery."""
        task_id = f"TASK-1-0-C-261118110640-0001-{next(_ids):06d}"
        return of_result(result(id=task_id, callback_url=url, **changes), 0, now_ms=self.now_ms)

    async def go(self, *, until_ms: int | None = None) -> None:
        """Let everything that is due be delivered, and time go on, until nothing waits or a time has come."""
        while self.waiting:
            next_ms = min(each["due_ms"] or 0 for each in self.waiting)
            if until_ms is not None and next_ms > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = max(self.now_ms, next_ms)
            due = [each for each in self.waiting if (each["due_ms"] or 0) <= self.now_ms + 100]
            self.waiting = [each for each in self.waiting if each not in due]
            await asyncio.gather(*(self.courier.deliver(each) for each in due))

    async def all_delivered(self, begun: list[Delivery]) -> None:
        """Go on to the end, and hold that every one has been accepted."""
        await self.go()
        states = [self.rows[each["task_id"]]["state"] for each in begun]
        assert set(states) == {"delivered"}
        assert self.letters == []


async def test_a_receiver_that_is_down_for_ten_minutes_gets_all_signed_and_without_a_herd(
    world: World, receiver: Receiver
) -> None:
    receiver.down = True
    begun = [world.new(f"{receiver.root}/200") for _ in range(200)]
    began_ms = world.now_ms
    await asyncio.gather(*(world.courier.deliver(each) for each in begun))
    await world.go(until_ms=began_ms + TEN_MINUTES_MS)
    assert receiver.broken_off < 150, "the host was probed and not hammered"
    receiver.down = False
    await world.all_delivered(begun)
    assert world.now_ms - began_ms < 8 * 3_600_000
    for each in begun:
        [call] = receiver.calls[each["task_id"]]
        stamp = datetime.fromtimestamp(int(call.headers["webhook-timestamp"]), UTC)
        wanted = Webhook(SECRET).sign(each["id"], stamp, call.body.decode())
        assert call.headers["webhook-signature"] == wanted
        assert call.headers["webhook-id"] == each["id"]


@pytest.mark.parametrize(
    "path", ["500-then-reset-then-429-then-200", "hang-then-200", "nonsense-then-503-then-202", "lie", "busy-then-200"]
)
async def test_flapping_slow_and_lying_receivers_get_all(world: World, receiver: Receiver, path: str) -> None:
    begun = [world.new(f"{receiver.root}/{path}") for _ in range(8)]
    await asyncio.gather(*(world.courier.deliver(each) for each in begun))
    await world.all_delivered(begun)
    assert {len(receiver.got[each["task_id"]]) for each in begun} == {path.count("-then-") + 1}


async def test_the_ladder_is_climbed_to_its_end_and_then_there_is_a_dead_letter(
    world: World, receiver: Receiver
) -> None:
    lost = world.new(f"{receiver.root}/500")
    began_ms = world.now_ms
    await world.courier.deliver(lost)
    await world.go()
    row = world.rows[lost["task_id"]]
    assert (row["state"], row["made"], row["due_ms"]) == ("failed", 10, None)
    assert world.letters == [lost["task_id"].encode()]
    hours = (world.now_ms - began_ms) / 3_600_000
    assert 75 < hours < 84
    waits = [
        after["at_ms"] - before["at_ms"] for before, after in zip(row["attempts"], row["attempts"][1:], strict=False)
    ]
    for wait, delay_s in zip(waits, world.settings.webhooks.retry_delays, strict=True):
        assert delay_s * 1000 <= wait <= delay_s * 1100 + 1_000


async def test_what_failed_together_does_not_come_back_together(world: World, receiver: Receiver) -> None:
    begun = [world.new(f"{receiver.root}/500-then-200") for _ in range(50)]
    await asyncio.gather(*(world.courier.deliver(each) for each in begun))
    due = sorted(each["due_ms"] or 0 for each in world.waiting)
    assert due[-1] - due[0] > 300
    assert len(set(due)) > 30


async def test_a_host_that_stays_away_is_given_up_in_the_end(receiver: Receiver) -> None:
    world = World(retry_delays=[1, 2])
    receiver.down = True
    begun = [world.new(f"{receiver.root}/200") for _ in range(60)]
    await asyncio.gather(*(world.courier.deliver(each) for each in begun))
    await world.go()
    assert {world.rows[each["task_id"]]["state"] for each in begun} == {"failed"}
    assert len(world.letters) == len(begun)
    await world.poster.close()


async def test_a_410_ends_what_waits_for_the_same_url_of_the_same_tenant(world: World, receiver: Receiver) -> None:
    url = f"{receiver.root}/500-then-410"
    waits, other = world.new(url, owner="a"), world.new(url, owner="b")
    await asyncio.gather(world.courier.deliver(waits), world.courier.deliver(other))
    gone = world.new(f"{receiver.root}/410", owner="a")
    same = world.new(f"{receiver.root}/410", owner="a")
    await world.courier.deliver(gone)
    await world.courier.deliver(same)
    assert [world.rows[each["task_id"]]["state"] for each in (gone, same)] == ["disabled"] * 2
    assert receiver.got[same["task_id"]] == []
    await world.go()
    assert [len(receiver.got[each["task_id"]]) for each in (waits, other)] == [2, 2]
    world.now_ms += world.settings.webhooks.disable_s * 1000 + 1
    again = world.new(f"{receiver.root}/410", owner="a")
    await world.courier.deliver(again)
    assert len(receiver.got[again["task_id"]]) == 1, "the mark has an end"


async def test_progress_is_not_told_late(world: World, receiver: Receiver) -> None:
    news: Delivery = {**world.new(f"{receiver.root}/500"), "event": "progress"}
    await world.courier.deliver(news)
    assert world.waiting == []
    assert world.letters == []
    assert world.rows[news["task_id"]]["state"] == "failed"
