"""The pool of upstreams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from core.settings.models import Settings
from dispatcher.inference import upstream_pool as pool_module
from dispatcher.inference.upstream import Upstream
from dispatcher.inference.upstream_pool import STARTUP_GRACE_S, UpstreamPool
from dispatcher.task_supervisor import TaskSupervisor
from tests.support.ports import free_port
from tests.support.waiting import eventually_async


class World:
    """Three upstreams at addresses that are not called, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes = 0
        self.upstreams = [Upstream(Settings(), f"http://127.0.0.1:{port}/v1") for port in (1, 2, 3)]
        for upstream in self.upstreams:
            upstream.up = True
        self.pool = UpstreamPool(self.upstreams, concurrency=2, on_change=self._changed, monotonic=lambda: self.now)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.pool.close()


async def test_the_least_loaded_takes_the_next_call(world: World) -> None:
    picked = [await world.pool.acquire() for _ in range(6)]
    assert sorted(upstream.base for upstream in picked[:3]) == [u.base for u in world.upstreams]
    assert [upstream.load for upstream in world.upstreams] == [2, 2, 2]
    waiting = asyncio.create_task(world.pool.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    world.pool.release(world.upstreams[1])
    assert await waiting is world.upstreams[1]


async def test_one_that_asks_for_it_is_left_out_for_that_time(world: World) -> None:
    first = world.upstreams[0]
    world.pool.back_off(first, 0.05)
    assert world.pool.capacity == 4
    assert world.pool.up == 3
    assert {(await world.pool.acquire()).base for _ in range(4)} == {u.base for u in world.upstreams[1:]}
    waiting = asyncio.create_task(world.pool.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    changes, world.now = world.changes, world.now + 0.05
    await eventually_async(lambda: world.changes > changes, what="the return of the upstream")
    assert await waiting is first


async def test_a_shorter_wish_does_not_shorten_a_longer_one(world: World) -> None:
    world.pool.back_off(world.upstreams[0], 10)
    world.pool.back_off(world.upstreams[0], 1)
    world.now += 5
    assert world.pool.capacity == 4
    world.pool.back_off(world.upstreams[1], 0)
    assert world.pool.capacity == 4


async def test_one_that_cannot_be_reached_is_out_until_it_answers(world: World) -> None:
    world.pool.mark_unreachable(world.upstreams[0], "refused")
    world.pool.mark_unreachable(world.upstreams[0], "refused again")
    assert (world.pool.up, world.pool.capacity, world.changes) == (2, 4, 1)


async def test_a_cancelled_wait_takes_nothing(world: World) -> None:
    for upstream in world.upstreams:
        world.pool.mark_unreachable(upstream, "refused")
    waiting = asyncio.create_task(world.pool.acquire())
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
    assert world.pool.unhealthy_reasons() is None
    world.upstreams[0].up = False
    world.pool.back_off(world.upstreams[2], 30)
    assert world.pool.unhealthy_reasons() == (
        "http://127.0.0.1:1/v1 does not answer; http://127.0.0.1:3/v1 is backing off for 30 s (Retry-After)"
    )


async def watching(base: str, *, within_s: float) -> tuple[UpstreamPool, Upstream]:
    """Watch one upstream as a pool that started so long ago."""
    times = iter([0.0])
    upstream = Upstream(Settings(), base)
    pool = UpstreamPool([upstream], concurrency=2, on_change=lambda: None, monotonic=lambda: next(times, within_s))
    pool.start(TaskSupervisor())
    return pool, upstream


async def test_an_upstream_that_was_never_reachable_is_logged_once_and_when_it_responds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dispatcher.inference.upstream_pool")
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    pool, upstream = await watching(base, within_s=STARTUP_GRACE_S)
    await eventually_async(lambda: caplog.messages, what="a line")
    assert pool.unhealthy_reasons() == f"{base} does not answer: it refuses connections"
    asked: list[bool] = []

    async def models(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(True)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(models, "127.0.0.1", port):
        await eventually_async(lambda: upstream.up, what="its answer")
        assert pool.unhealthy_reasons() is None
        pool.mark_unreachable(upstream, "the connection broke")
        await eventually_async(lambda: len(asked) > 1 and upstream.up, what="another probe")
    await pool.close()
    assert caplog.messages == [
        f"{base} has not answered since the start: it refuses connections",
        f"{base} answers",
        f"{base} does not answer: the connection broke",
        f"{base} answers",
    ]
    assert {record.event for record in caplog.records} == {"upstream_down", "upstream_up"}  # type: ignore[attr-defined]


async def test_a_server_that_starts_beside_us_is_given_a_moment(caplog: pytest.LogCaptureFixture) -> None:
    pool, upstream = await watching(f"http://127.0.0.1:{free_port()}/v1", within_s=STARTUP_GRACE_S - 0.1)
    await eventually_async(lambda: upstream.failure, what="a probe")
    await pool.close()
    assert caplog.messages == []


async def test_an_upstream_that_stays_unreachable_is_probed_again_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "PROBE_DOWN_S", 0.001)
    probes: list[bool] = []
    world = World()
    upstream = world.upstreams[0]
    upstream.up = False

    async def is_reachable() -> bool | None:
        probes.append(True)
        return None if len(probes) % 2 else False

    monkeypatch.setattr(upstream, "is_reachable", is_reachable)
    pool = UpstreamPool([upstream], concurrency=1, on_change=lambda: None, monotonic=iter(range(0, 10_000, 5)).__next__)
    pool.start(TaskSupervisor())
    await eventually_async(lambda: len(probes) > 5, what="some probes")
    await pool.close()
    assert caplog.messages == [f"{upstream.base} has not answered since the start: it gives no answer"]
