"""How a tail rests and ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from core.kafka import topic_follower as module
from core.kafka.topic_follower import TopicFollower
from core.settings.models import Settings
from tests.support.waiting import turns


class CancellingConsumer:
    """Stops as aiokafka does while a fetch waits for a broker: with the CancelledError of its own fetch."""

    _subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=None))

    def __init__(self, **_: object) -> None:
        self.stopped = False

    async def start(self) -> None:
        """Connect."""

    def assign(self, _: object) -> None:
        """Take nothing."""

    async def end_offsets(self, _: object) -> dict[object, int]:
        return {}

    beginning_offsets = end_offsets

    async def getmany(self, **_: int) -> dict[object, object]:
        await asyncio.sleep(0)
        return {}

    async def stop(self) -> None:
        self.stopped = True
        raise asyncio.CancelledError


async def test_closing_while_the_broker_is_away_cancels_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = CancellingConsumer()
    monkeypatch.setattr(module, "AIOKafkaConsumer", lambda **_: consumer)
    tail = TopicFollower(Settings(), name="tail", topics=[], handle=lambda *_: None)
    await tail.open()
    await tail.close()
    assert consumer.stopped


PLACE = TopicPartition("topic", 0)
LONG_S = 3600.0


class Scripted:
    """Gives one record with every getmany, and counts them."""

    def __init__(self) -> None:
        self.given = 0
        self.asked: list[str] = []
        self._client = SimpleNamespace(force_metadata_update=self._known, _wait_on_metadata=self._known)

    async def _known(self, *_: object) -> None:
        """Know every topic."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Close."""

    def assign(self, _: object) -> None:
        self.asked.append("assign")

    def seek(self, *_: object) -> None:
        """Begin there."""

    def partitions_for_topic(self, _: str) -> set[int]:
        return {PLACE.partition}

    async def beginning_offsets(self, _: object) -> dict[TopicPartition, int]:
        self.asked.append("beginning_offsets")
        return {PLACE: 0}

    async def end_offsets(self, _: object) -> dict[TopicPartition, int]:
        self.asked.append("end_offsets")
        return {PLACE: 2}

    async def getmany(self, **_: int) -> dict[TopicPartition, list[SimpleNamespace]]:
        await asyncio.sleep(0)
        self.given += 1
        return {PLACE: [SimpleNamespace(offset=self.given - 1, headers=())]}

    @property
    def _subscription(self) -> SimpleNamespace:
        """Tell the position as aiokafka keeps it."""
        state = SimpleNamespace(has_valid_position=True, position=self.given)
        return SimpleNamespace(
            subscription=SimpleNamespace(assignment=SimpleNamespace(tps={PLACE}, state_value=lambda _: state))
        )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    consumer = Scripted()
    monkeypatch.setattr(module, "AIOKafkaConsumer", lambda **_: consumer)
    return consumer


def resting() -> TopicFollower:
    return TopicFollower(Settings(), name="tail", topics=[PLACE.topic], handle=lambda *_: None, rest_s=LONG_S)


async def test_the_bounds_are_asked_for_before_a_fetch_could_hold_them_up(scripted: Scripted) -> None:
    tail = resting()
    await tail.open()
    assert scripted.asked == ["end_offsets", "beginning_offsets", "assign"]
    await tail.close()


async def test_a_tail_rests_only_once_it_has_read_what_was_there(scripted: Scripted) -> None:
    tail = resting()
    await tail.open()
    await tail.wait_caught_up()
    await turns(100)
    assert scripted.given == 2
    await tail.close()


async def test_there_is_no_pause_while_a_caller_waits(scripted: Scripted) -> None:
    tail = resting()
    await tail.open()
    await tail.wait_caught_up()
    await turns(100)
    async with asyncio.timeout(60):
        await tail.wait_for_offset(PLACE, 9)
    await turns(100)
    # The rest begins anew with the batch after that: the reader was on its way already.
    assert 10 <= scripted.given <= 11
    with tail.low_latency():
        await turns(100)
        assert scripted.given > 12
    await turns(100)
    given = scripted.given
    await turns(100)
    assert scripted.given == given
    async with asyncio.timeout(60):
        await tail.close()


async def test_a_topic_that_was_re_created_needs_not_grow_to_its_old_end(scripted: Scripted) -> None:
    tail = resting()
    await tail.open()
    with tail.low_latency():
        await tail.wait_caught_up()
        scripted.given, seen = 0, set[tuple[int, bool]]()
        for _ in range(10):
            await turns(1)
            seen.add((tail.positions[PLACE], tail.caught_up))
        assert (1, True) in seen
        assert (1, False) not in seen
    await tail.close()
