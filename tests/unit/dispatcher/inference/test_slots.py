"""Slots: online first, a share for either level, and no slot lost or given twice."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.inference.concurrency import OFFLINE, ONLINE, CallSlots, Draining, SlotRules
from tests.support.waiting import eventually_async, turns

levels = st.sampled_from([ONLINE, OFFLINE])


@given(
    share=st.floats(0, 0.9),
    capacity=st.integers(0, 200),
    used=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    waiting=st.tuples(st.booleans(), st.booleans()),
    streak=st.integers(0, 50),
)
def test_the_choice(
    share: float, capacity: int, used: tuple[int, int], waiting: tuple[bool, bool], streak: int
) -> None:
    rules = SlotRules(share)
    level = rules.pick(capacity, used, waiting, streak)
    free = capacity - sum(used)
    if level is None:
        room_for_offline = used[OFFLINE] < capacity - rules.reserved(capacity)
        assert free <= 0 or not (waiting[ONLINE] or (waiting[OFFLINE] and room_for_offline))
        return
    assert free > 0
    assert waiting[level]
    if level == OFFLINE:
        assert used[OFFLINE] < capacity - rules.reserved(capacity)
    if waiting[ONLINE] and waiting[OFFLINE] and used[OFFLINE] < rules.reserved(capacity) and capacity > 1:
        assert level == OFFLINE or used[OFFLINE] >= capacity - rules.reserved(capacity)
    assert 0 <= rules.available(level, capacity, used) <= max(0, free)


async def test_online_finds_a_slot_amid_an_offline_flood() -> None:
    slots = CallSlots(share=0.1, capacity=20)
    flood = [asyncio.create_task(slots.acquire(OFFLINE)) for _ in range(100)]
    await turns()
    assert slots.used == (0, 18)
    await asyncio.wait_for(slots.acquire(ONLINE), 60)
    assert slots.available(OFFLINE) == 0
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_offline_gets_its_share_while_online_floods() -> None:
    slots = CallSlots(share=0.1, capacity=20)
    tasks = [asyncio.create_task(slots.acquire(ONLINE)) for _ in range(200)]
    await turns()
    tasks += [asyncio.create_task(slots.acquire(OFFLINE)) for _ in range(10)]
    await turns()
    assert slots.used == (20, 0)
    for _ in range(30):
        slots.release(ONLINE)
    assert slots.used == (18, 2)
    slots.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_with_a_single_slot_the_levels_take_turns() -> None:
    slots = CallSlots(share=0.1, capacity=1)
    order: list[int] = []

    async def use(level: int) -> None:
        await slots.acquire(level)
        order.append(level)
        await asyncio.sleep(0)
        slots.release(level)

    await asyncio.gather(*(use(ONLINE) for _ in range(30)), *(use(OFFLINE) for _ in range(3)))
    assert order.count(OFFLINE) == 3
    assert order.index(OFFLINE) <= 10
    assert slots.used == (0, 0)


async def test_a_smaller_capacity_gives_nothing_until_enough_has_ended() -> None:
    slots = CallSlots(share=0, capacity=2)
    await slots.acquire(ONLINE)
    await slots.acquire(ONLINE)
    slots.resize(1)
    third = asyncio.create_task(slots.acquire(ONLINE))
    slots.release(ONLINE)
    await turns()
    assert not third.done()
    slots.release(ONLINE)
    await third
    assert slots.used == (1, 0)


async def test_closing_sends_those_who_wait_away() -> None:
    slots = CallSlots(share=0.1)
    waiting = asyncio.create_task(slots.acquire(OFFLINE))
    await turns()
    slots.close()
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await slots.acquire(ONLINE)


@pytest.mark.parametrize("seed", range(8))
async def test_no_slot_leaks_under_errors_and_cancels(seed: int) -> None:
    chance = random.Random(seed)
    slots = CallSlots(share=0.2, capacity=5)
    peak = 0

    async def use(level: int) -> None:
        nonlocal peak
        await slots.acquire(level)
        try:
            peak = max(peak, sum(slots.used))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                raise RuntimeError("the call failed")
        finally:
            slots.release(level)

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(use(chance.choice([ONLINE, OFFLINE]))))
        if chance.random() < 0.5:
            chance.choice(tasks).cancel()
        if chance.random() < 0.1:
            slots.resize(chance.randrange(6))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    slots.resize(5)
    await eventually_async(lambda: all(task.done() for task in tasks), what="the end of all tasks")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert slots.used == (0, 0)
    assert peak <= 5
    assert slots.available(ONLINE) == 5
