"""The pool of upstreams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.settings import Settings
from dispatcher.pool import Pool
from dispatcher.upstream import Upstream
from tests.support.waiting import eventually_async


class World:
    """Three upstreams at addresses that nobody asks, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes = 0
        self.upstreams = [Upstream(Settings(), f"http://127.0.0.1:{port}/v1") for port in (1, 2, 3)]
        for upstream in self.upstreams:
            upstream.up = True
        self.pool = Pool(self.upstreams, concurrency=2, on_change=self._changed, monotonic=lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.pool.close()


async def test_the_least_loaded_takes_the_next_call(world: World) -> None:
    picked = [await world.pool.pick() for _ in range(6)]
    assert sorted(upstream.base for upstream in picked[:3]) == [u.base for u in world.upstreams]
    assert [upstream.load for upstream in world.upstreams] == [2, 2, 2]
    waiting = asyncio.create_task(world.pool.pick())
    await asyncio.sleep(0)
    assert not waiting.done()
    world.pool.put_back(world.upstreams[1])
    assert await waiting is world.upstreams[1]


async def test_one_that_asks_for_it_is_left_out_for_that_time(world: World) -> None:
    first = world.upstreams[0]
    world.pool.leave_out(first, 0.05)
    assert world.pool.capacity == 4
    assert world.pool.up == 3
    assert {(await world.pool.pick()).base for _ in range(4)} == {u.base for u in world.upstreams[1:]}
    waiting = asyncio.create_task(world.pool.pick())
    await asyncio.sleep(0)
    assert not waiting.done()
    changes, world.now = world.changes, world.now + 0.05
    await eventually_async(lambda: world.changes > changes, what="the return of the upstream")
    assert await waiting is first


async def test_a_shorter_wish_does_not_shorten_a_longer_one(world: World) -> None:
    world.pool.leave_out(world.upstreams[0], 10)
    world.pool.leave_out(world.upstreams[0], 1)
    world.now += 5
    assert world.pool.capacity == 4
    world.pool.leave_out(world.upstreams[1], 0)
    assert world.pool.capacity == 4


async def test_one_that_cannot_be_reached_is_out_until_it_answers(world: World) -> None:
    world.pool.unreachable(world.upstreams[0], "refused")
    world.pool.unreachable(world.upstreams[0], "refused again")
    assert (world.pool.up, world.pool.capacity, world.changes) == (2, 4, 1)


async def test_a_cancelled_wait_takes_nothing(world: World) -> None:
    for upstream in world.upstreams:
        world.pool.unreachable(upstream, "refused")
    waiting = asyncio.create_task(world.pool.pick())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert [upstream.load for upstream in world.upstreams] == [0, 0, 0]
    assert world.pool.capacity == 0


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("/v1/chat/completions", "http://127.0.0.1:1/v1/chat/completions"),
        ("/v1/audio/speech", "http://127.0.0.1:1/v1/audio/speech"),
        ("/rerank", "http://127.0.0.1:1/v1/rerank"),
        ("/v1beta/x", "http://127.0.0.1:1/v1/v1beta/x"),
    ],
)
async def test_where_an_endpoint_leads(world: World, endpoint: str, url: str) -> None:
    assert str(world.upstreams[0]._make_url(endpoint)) == url


async def test_it_says_who_takes_no_calls_and_why(world: World) -> None:
    assert world.pool.troubles() is None
    world.upstreams[0].up = False
    world.pool.leave_out(world.upstreams[2], 30)
    assert world.pool.troubles() == (
        "http://127.0.0.1:1/v1 does not answer; http://127.0.0.1:3/v1 asked for no calls for 30 s more"
    )
