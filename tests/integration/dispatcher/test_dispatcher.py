"""Dispatchers on a real broker and a simulated upstream; the test plays the scheduler."""

from __future__ import annotations

import asyncio
import time

import orjson

from bench.simulator import Simulator
from core.settings import Settings
from schemas import topics
from tests.support.dispatcher_probe import QUEUE, DispatcherProbe, dispatching
from tests.support.waiting import eventually_async

ONLINE = topics.work(QUEUE, 0)
OFFLINE = topics.work(QUEUE, 1)


async def test_an_instant_call_is_reported_and_committed(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        ids = [await probe.submit(level=number % 2) for number in range(20)]
        for task_id in ids:
            event = await probe.ended(task_id)
            outcome = event["outcome"]
            assert outcome is not None
            assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (200, None, False)
            assert outcome["usage"] is not None
            assert orjson.loads(outcome["body"] or b"")["object"] == "chat.completion"
            assert outcome["upstream"] == f"{sim.root}/v1"
        await probe.committed(ONLINE, ONLINE)
        await probe.committed(OFFLINE, OFFLINE)
    assert {kind for task_id in ids for kind in probe.kinds(task_id)} <= {"claimed", "finished"}
    assert sim.stats.arrivals == 20


async def test_a_slow_call_is_claimed_and_committed_while_it_runs(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(sim={"latency_ms": 4000})
        await eventually_async(lambda: probe.kinds(task_id) == ["claimed"], what="the claim")
        await probe.committed(ONLINE, ONLINE)
        assert sim.stats.current == 1
        assert probe.kinds(task_id) == ["claimed"]
        event = await probe.ended(task_id)
    assert event["worker"] == probe.events[task_id][0]["worker"]


async def test_heartbeats_reach_every_partition_until_the_goodbye(probe: DispatcherProbe, settings: Settings) -> None:
    async with dispatching(settings):
        await eventually_async(lambda: any(event["upstreams_up"] == 1 for event in probe.alive), what="an upstream")
        before = len(probe.alive)
        await eventually_async(lambda: len(probe.alive) >= before + 2 * 2 * settings.kafka.partitions)
    await eventually_async(lambda: [e["kind"] for e in probe.alive].count("goodbye") == 2 * settings.kafka.partitions)
    assert len({event["worker"] for event in probe.alive}) == 1
    assert [event["kind"] for event in probe.alive[-4:]] == ["goodbye"] * 4


async def test_a_cancel_closes_the_connection_at_once(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(sim={"latency_ms": 30_000})
        streamed = await probe.submit(mode="streaming", sim={"tokens": 1000, "token_ms": 30})
        await eventually_async(lambda: sim.stats.current == 2 and probe.chunks[streamed], what="both calls")
        began = time.monotonic()
        await asyncio.gather(probe.cancel(task_id), probe.cancel(streamed))
        await eventually_async(lambda: sim.stats.disconnects == 2, what="the end of both connections")
        assert time.monotonic() - began < 1
        await probe.committed(ONLINE, ONLINE)
    assert "finished" not in probe.kinds(task_id) + probe.kinds(streamed)
    assert "released" not in probe.kinds(task_id) + probe.kinds(streamed)


async def test_a_cancel_from_before_the_start_is_known(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    cancelled = await probe.submit()
    await probe.cancel(cancelled)
    async with dispatching(settings):
        await probe.ended(await probe.submit())
        await probe.committed(ONLINE, ONLINE)
    assert sim.stats.arrivals == 1
    assert probe.kinds(cancelled) == []


async def test_a_new_queue_is_served_within_two_seconds(probe: DispatcherProbe, settings: Settings) -> None:
    async with dispatching(settings):
        await probe.ended(await probe.submit())
        await probe.directory.register(probe.producer, "fresh")
        began = time.monotonic()
        await probe.ended(await probe.submit(queue="fresh"))
        assert time.monotonic() - began < 2


async def test_poison_is_buried_and_its_partition_moves_on(probe: DispatcherProbe, settings: Settings) -> None:
    async with dispatching(settings):
        partition, offset = await probe.put_work(QUEUE, 0, "poison", b"\x00garbage")
        bad_id = await probe.submit(task_id="TASK-7-0-C-261118110640-0077-000001")
        good = [await probe.submit() for _ in range(4)]
        for task_id in good:
            await probe.ended(task_id)
        await eventually_async(lambda: len(probe.letters) == 2, what="two dead letters")
        await probe.committed(ONLINE, ONLINE)
    letters = {letter.key: letter for letter in probe.letters}
    first, second = letters[b"poison"], letters[bad_id.encode()]
    headers = dict(first.headers)
    assert first.value == b"\x00garbage"
    assert headers["x-topic"].decode() == settings.topic(ONLINE)
    assert (int(headers["x-partition"]), int(headers["x-offset"])) == (partition, offset)
    assert b"task" in headers["x-reason"] or b"schema" in headers["x-reason"]
    assert dict(second.headers)["x-field"] == b"id"
    assert dict(second.headers)["x-attempt"] == b"1"


async def test_a_second_dispatcher_shares_the_work_and_runs_nothing_again(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        slow = [await probe.submit(sim={"latency_ms": 6000}) for _ in range(6)]
        await eventually_async(lambda: sim.stats.current == 6, what="six calls")
        async with dispatching(settings):
            quick: list[str] = []
            give_up = time.monotonic() + 30
            while len({event["worker"] for one in quick for event in probe.events[one]}) < 2:
                assert time.monotonic() < give_up, "the second dispatcher was given no work"
                quick += [await probe.submit() for _ in range(10)]
                await probe.ended(quick[-1])
            for task_id in slow + quick:
                await probe.ended(task_id)
    assert sim.stats.arrivals == len(slow) + len(quick)
    assert {probe.kinds(task_id).count("finished") for task_id in slow + quick} == {1}


async def test_a_stop_finishes_what_it_can_and_gives_the_rest_back(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings) as dispatcher:
        short = await probe.submit(sim={"latency_ms": 600})
        long = [await probe.submit(sim={"latency_ms": 60_000}) for _ in range(3)]
        stream = await probe.submit(mode="streaming", sim={"tokens": 1000, "token_ms": 50})
        await eventually_async(lambda: sim.stats.current == 5 and probe.chunks[stream], what="five calls")
        began = time.monotonic()
        await dispatcher.stop()
        assert time.monotonic() - began < 8
    assert probe.finished(short) is not None
    for task_id in long:
        assert probe.kinds(task_id)[-1] == "released"
        assert "finished" not in probe.kinds(task_id)
    cut = probe.finished(stream)
    assert cut is not None
    assert cut["outcome"] is not None
    assert (cut["outcome"]["error_code"], cut["outcome"]["retriable"]) == ("worker_stopped", False)
    assert cut["outcome"]["chunks"] > 1
    await eventually_async(lambda: sim.stats.disconnects == 4, what="the end of the connections")
    assert probe.alive[-1]["kind"] == "goodbye"
    await probe.committed(ONLINE, ONLINE)
    async with dispatching(settings):
        again = await probe.submit(task_id=long[0], attempt=2)
        await eventually_async(lambda: [e["attempt"] for e in probe.events[again] if e["kind"] == "finished"] == [2])
    assert sim.stats.arrivals == 6, "what was given back is not read again"
