"""Work from its record to its outcome, on a real broker and a simulated upstream; the test plays the scheduler."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from core.settings.models import Settings
from schemas import topics
from tests.support.dispatcher_probe import QUEUE, DispatcherProbe
from tests.support.held_upstream import HELD, HeldUpstream
from tests.support.spans import PARENT, context_of, kept_spans, parent_of
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.usefixtures("dispatcher")


async def test_an_instant_call_is_reported_and_committed(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    ids = [await probe.submit(level=number % 2) for number in range(20)]
    for task_id in ids:
        event = await probe.ended(task_id)
        outcome = event["outcome"]
        assert outcome is not None
        assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (200, None, False)
        assert outcome["usage"] is not None
        assert orjson.loads(outcome["body"] or b"")["object"] == "chat.completion"
        assert outcome["upstream"] == sim.url
    for level in range(2):
        await probe.work_committed(level)
    assert {kind for task_id in ids for kind in probe.kinds(task_id)} <= {"claimed", "finished"}
    assert sim.stats.arrivals == 20


async def test_a_slow_call_is_claimed_and_committed_while_it_runs(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    task_id = await probe.submit(sim=HELD)
    await eventually_async(lambda: probe.kinds(task_id) == ["claimed"], what="the claim")
    await probe.work_committed()
    assert sim.stats.current == 1
    assert probe.kinds(task_id) == ["claimed"]
    sim.answer(task_id)
    event = await probe.ended(task_id)
    assert event["worker"] == probe.events[task_id][0]["worker"]


async def test_a_cancel_closes_the_connection_at_once(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    task_id = await probe.submit(sim=HELD)
    streamed = await probe.submit(mode="streaming", sim={**HELD, "tokens": 10})
    await eventually_async(lambda: sim.stats.current == 2, what="both calls")
    sim.token(streamed)
    await eventually_async(lambda: probe.chunks[streamed], what="the first token")
    await asyncio.gather(probe.cancel(task_id), probe.cancel(streamed))
    for _ in range(10):  # it takes no longer than as many calls, one after the other
        await probe.ended(await probe.submit())
    assert sim.stats.disconnects == 2
    await probe.work_committed()
    assert "finished" not in probe.kinds(task_id) + probe.kinds(streamed)
    assert "released" not in probe.kinds(task_id) + probe.kinds(streamed)


async def test_a_new_queue_is_served_within_two_seconds(probe: DispatcherProbe) -> None:
    await probe.ended(await probe.submit())
    for number in range(10):  # one of ten that the machine did not stand still for, or was busy with something else
        await probe.directory.register(probe.producer, f"new-{number}")
        began = time.monotonic()
        await probe.ended(await probe.submit(queue=f"new-{number}"))
        if time.monotonic() - began < 2:
            return
    pytest.fail("none of ten new queues was served within two seconds")


async def test_malformed_work_is_dead_lettered_and_its_partition_continues(
    probe: DispatcherProbe, settings: Settings
) -> None:
    bad_id = "TASK-7-0-C-261118110640-0077-000001"
    partition, offset = await probe.put_work(QUEUE, 0, "poison", b"\x00garbage")
    await probe.submit(task_id=bad_id)
    good = [await probe.submit() for _ in range(4)]
    for task_id in good:
        await probe.ended(task_id)
    letters = probe.dead_letters
    await eventually_async(lambda: {"poison", bad_id} <= {*letters}, what="two dead letters")
    await probe.work_committed()
    [first], [second] = letters["poison"], letters[bad_id]
    assert not {*good} & {*letters}
    headers = dict(first.headers)
    assert first.value == b"\x00garbage"
    assert headers["x-topic"].decode() == settings.topic(topics.work(QUEUE, 0))
    assert (int(headers["x-partition"]), int(headers["x-offset"])) == (partition, offset)
    assert b"task" in headers["x-reason"] or b"schema" in headers["x-reason"]
    assert dict(second.headers)["x-field"] == b"id"
    assert dict(second.headers)["x-attempt"] == b"1"


def asking(sim: bytes) -> bytes:
    """Build the body of a request with something in it that no span may hold."""
    return b'{"model":"m","messages":[{"role":"user","content":"a secret"}],"sim":%b}' % sim


async def test_an_attempt_and_its_call_are_spans(probe: DispatcherProbe, settings: Settings, sim: HeldUpstream) -> None:
    with kept_spans() as spans:
        good = await probe.submit(traceparent=PARENT, data=asking(b'{"tokens":5}'))
        await probe.ended(good)
        process, call = spans.one(f"process {settings.topic(topics.work(QUEUE, 0))}"), spans.one("chat m")
        bad = await probe.submit(traceparent=PARENT, data=asking(b'{"status":400}'))
        await probe.ended(bad)
    assert f"00-{process.context.trace_id:032x}" == PARENT[:35].decode()
    assert (parent_of(process), parent_of(call)) == (0x00F067AA0BA902B7, process.context.span_id)
    assert (probe.traceparents[good] or b"").decode() == context_of(process)
    assert sim.recent[-2].headers["traceparent"] == context_of(call)
    attributes = dict(call.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "m"
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["server.port"] == sim.port
    assert dict(process.attributes or {})["messaging.message.id"] == good
    failed = spans.all()[-2:]
    assert [dict(span.attributes or {})["error.type"] for span in failed] == ["400", "upstream_error"]
    assert not any("secret" in str(span.to_json()) for span in spans.all())


async def test_without_traces_the_context_reaches_the_upstream(probe: DispatcherProbe, sim: HeldUpstream) -> None:
    await probe.ended(await probe.submit(traceparent=PARENT))
    assert sim.recent[-1].headers["traceparent"] == PARENT.decode()
