"""Dispatchers that start, stop and take over from each other, and what a new one knows."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from core.settings.models import Settings
from core.storage.blobs import open_blobs
from dispatcher import main
from dispatcher.inference import upstream_pool
from dispatcher.inference.seen_attempts import SeenAttempts
from tests.support.dispatcher_probe import WITHIN_S, DispatcherProbe, dispatching
from tests.support.held_upstream import HELD, HeldUpstream
from tests.support.ports import free_port
from tests.support.waiting import eventually_async


@pytest.fixture(autouse=True)
async def queue(probe: DispatcherProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the test write to a queue in which nothing waits: a new one, when the test before has left something."""
    monkeypatch.setattr(main, "SHUTDOWN_S", 20)  # a machine may stand still while a dispatcher stops
    if not probe.directory.all() or await probe.uncommitted_work():
        await probe.use_queue(f"queue-{len(probe.directory.all())}")


async def test_heartbeats_reach_every_partition_until_the_goodbye(probe: DispatcherProbe, settings: Settings) -> None:
    known = {*probe.heartbeats}
    partitions = 2 * settings.kafka.partitions
    async with dispatching(settings):
        seen = probe.heartbeats[await probe.new_worker(known)]
        await eventually_async(
            lambda: any(event["upstreams_up"] == 1 for events in seen.values() for event in events),
            what="an upstream",
        )
        await eventually_async(
            lambda: len(seen) == partitions and all(len(events) > 2 for events in seen.values()),
            what="three heartbeats in every partition",
        )
    await eventually_async(
        lambda: all(events[-1]["kind"] == "goodbye" for events in seen.values()), what="the goodbyes"
    )
    kinds = [[event["kind"] for event in events] for events in seen.values()]
    assert [one.count("goodbye") for one in kinds] == [1] * partitions
    assert {kind for one in kinds for kind in one[:-1]} == {"heartbeat"}
    assert len({*probe.heartbeats} - known) == 1


async def test_a_cancel_from_before_the_start_is_known(
    probe: DispatcherProbe, settings: Settings, sim: HeldUpstream
) -> None:
    cancelled = await probe.submit()
    await probe.cancel(cancelled)
    async with dispatching(settings):
        await probe.ended(await probe.submit())
        await probe.work_committed()
    assert sim.stats.arrivals == 1
    assert probe.kinds(cancelled) == []


async def test_a_second_dispatcher_shares_the_work_and_runs_nothing_again(
    probe: DispatcherProbe, settings: Settings, sim: HeldUpstream
) -> None:
    async with dispatching(settings):
        slow = [await probe.submit(sim=HELD) for _ in range(6)]
        await eventually_async(lambda: sim.stats.current == 6, what="six calls")
        async with dispatching(settings):
            quick: list[str] = []
            give_up = time.monotonic() + WITHIN_S
            while len({event["worker"] for one in quick for event in probe.events[one]}) < 2:
                assert time.monotonic() < give_up, "the second dispatcher was given no work"
                quick += [await probe.submit() for _ in range(10)]
                await probe.ended(quick[-1])
            assert sim.stats.current == 6
            for task_id in slow:
                sim.answer(task_id)
            for task_id in slow + quick:
                await probe.ended(task_id)
    assert sim.stats.arrivals == len(slow) + len(quick)
    assert {probe.kinds(task_id).count("finished") for task_id in slow + quick} == {1}


async def test_a_stop_finishes_what_it_can_and_gives_the_rest_back(
    probe: DispatcherProbe, settings: Settings, sim: HeldUpstream
) -> None:
    known = {*probe.heartbeats}
    # The machine may stand still for a part of the grace.
    slow = settings.model_copy(update={"dispatcher": settings.dispatcher.model_copy(update={"shutdown_grace_s": 7})})
    async with dispatching(slow) as dispatcher:
        worker = await probe.new_worker(known)
        short = await probe.submit(sim=HELD)
        long = [await probe.submit(sim=HELD, timeout_s=3_600) for _ in range(3)]
        stream = await probe.submit(mode="streaming", sim={**HELD, "tokens": 10}, timeout_s=3_600)
        await eventually_async(lambda: sim.stats.current == 5, what="five calls")
        for count in (1, 2):
            sim.token(stream)
            await eventually_async(lambda: len(probe.chunks[stream]) == count, what="its chunk")  # noqa: B023
        stopping = asyncio.create_task(dispatcher.stop())
        await probe.left()
        sim.answer(short)  # within the grace: it has left the groups by now
        async with asyncio.timeout(WITHIN_S):  # the calls that hang would hold it up for an hour
            await stopping
    assert probe.finished(short) is not None
    for task_id in long:
        assert probe.kinds(task_id)[-1] == "released"
        assert "finished" not in probe.kinds(task_id)
    cut = probe.finished(stream)
    assert cut is not None
    assert cut["outcome"] is not None
    assert (cut["outcome"]["error_code"], cut["outcome"]["retriable"]) == ("worker_stopped", False)
    assert cut["outcome"]["chunks"] == 2
    await eventually_async(lambda: sim.stats.disconnects == 4, what="the end of the connections")
    assert {event["kind"] for event in probe.last_heartbeats(worker)} == {"goodbye"}
    await probe.work_committed()
    async with dispatching(settings):
        again = await probe.submit(task_id=long[0], attempt=2)
        await eventually_async(
            lambda: [e["attempt"] for e in probe.events[again] if e["kind"] == "finished"] == [2],
            what="the second attempt",
        )
    assert sim.stats.arrivals == 6, "what was given back is not read again"


async def test_a_call_that_is_made_again_leaves_the_first_answer_as_it_was(
    probe: DispatcherProbe, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(sim={"size": 700_000})
        first = await probe.outcome(task_id)
    # The first was frozen before it spoke, say: the next one reads the record again and has heard nothing of it.
    monkeypatch.setattr(SeenAttempts, "__contains__", lambda *_: False)
    async with dispatching(settings):
        await probe.submit(sim={"size": 700_001}, task_id=task_id)
        await probe.ended_again(task_id)
    assert first["body_ref"] is not None
    assert len(await open_blobs(settings).get(first["body_ref"])) == 700_000


async def test_work_is_held_while_no_upstream_answers(
    probe: DispatcherProbe, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up() -> set[int]:
        return {event["upstreams_up"] for event in probe.last_heartbeats(worker)}

    monkeypatch.setattr(upstream_pool, "PROBE_UP_S", 0.5)
    known = {*probe.heartbeats}
    async with HeldUpstream() as away:
        upstream = settings.upstream.model_copy(update={"urls": [away.url]})
        away_from = settings.model_copy(update={"upstream": upstream, "metrics_port": free_port()})
        await away.close()
        async with dispatching(away_from):
            worker = await probe.new_worker(known)
            told = f"{away.url} does not answer: it refuses connections"
            await eventually_async(
                lambda: {event["reason"] for event in probe.last_heartbeats(worker)} == {told},
                what="the reason",
            )
            async with httpx.AsyncClient() as client:
                ready = await client.get(f"http://127.0.0.1:{away_from.metrics_port}/readyz")
            assert f"no upstream accepts calls: {told}" in ready.text
            task_id = await probe.submit()
            late = await probe.submit(timeout_s=1)
            assert up() == {0}
            await away.start()
            event = await probe.ended(task_id)
            assert event["outcome"] is not None
            assert event["outcome"]["status_code"] == 200
            assert event["attempt"] == 1
            assert (await probe.ended(late))["outcome"] is not None
            await away.close()
            again = await probe.submit()
            await eventually_async(lambda: up() == {0}, what="the heartbeats of the outage")
            await away.start()
            assert (await probe.ended(again))["attempt"] == 1
    assert probe.kinds(again)[-1] == "finished"
