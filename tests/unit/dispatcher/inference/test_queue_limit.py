"""How many calls of one queue may run, and none while it is paused."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher.inference.concurrency import Draining, QueueLimit


async def test_a_queue_without_settings_has_all_the_room_there_is() -> None:
    allowance = QueueLimit()
    assert all([await allowance.acquire() for _ in range(1_000)])
    await allowance.wait_available()


async def test_so_many_calls_run_at_once_and_no_more() -> None:
    allowance = QueueLimit()
    allowance.set(paused=False, concurrency=2)
    assert [await allowance.acquire(), await allowance.acquire(), allowance.available] == [True, True, 0]
    third = asyncio.create_task(allowance.acquire())
    await asyncio.sleep(0)
    assert not third.done()
    allowance.release()
    assert await third
    allowance.set(paused=False, concurrency=1)
    allowance.release()
    assert allowance.available == 0, "one runs still"
    allowance.release()
    assert allowance.available == 1


async def test_a_pause_stops_queue_consumers_and_those_waiting_for_capacity() -> None:
    allowance = QueueLimit()
    allowance.set(paused=False, concurrency=1)
    assert await allowance.acquire()
    waiting = asyncio.create_task(allowance.acquire())
    await asyncio.sleep(0)
    allowance.set(paused=True, concurrency=1)
    assert not await waiting
    passing = asyncio.create_task(allowance.wait_available())
    await asyncio.sleep(0)
    allowance.release()
    await asyncio.sleep(0)
    assert not passing.done()
    allowance.set(paused=False, concurrency=1)
    await passing


async def test_a_stop_ends_every_wait() -> None:
    allowance = QueueLimit()
    allowance.set(paused=True, concurrency=None)
    passing = asyncio.create_task(allowance.wait_available())
    await asyncio.sleep(0)
    allowance.close()
    await passing
    with pytest.raises(Draining):
        await allowance.acquire()
