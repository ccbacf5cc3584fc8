"""A trace goes on from the work record to the upstream and to the event that says how it ended."""

from __future__ import annotations

from aiokafka import TopicPartition

from bench.simulator import Simulator
from core.kafka.producer import Record
from core.kafka.tail import Records, Tail
from core.settings import Settings
from schemas import topics
from schemas.codec import WORK
from schemas.headers import find
from tests.support.dispatcher_doubles import work
from tests.support.dispatcher_probe import QUEUE, DispatcherProbe, dispatching
from tests.support.spans import PARENT, context_of, kept_spans, parent_of
from tests.support.waiting import eventually_async

BODY = b'{"model":"m","messages":[{"role":"user","content":"a secret"}],"sim":%b}'


async def put(probe: DispatcherProbe, settings: Settings, sim: bytes) -> str:
    """Write a work record with a trace context."""
    one = work(queue=QUEUE, data=BODY % sim, model="m", deadline_ms=1 << 50)
    record = Record(one["id"].encode(), WORK.encode(one), [("traceparent", PARENT)])
    await probe.producer.send(settings.topic(topics.work(QUEUE, 0)), 0, record)
    return one["id"]


async def test_an_attempt_and_its_call_are_spans(probe: DispatcherProbe, settings: Settings, sim: Simulator) -> None:
    told: dict[str, bytes | None] = {}

    def note(_: TopicPartition, records: Records) -> None:
        told.update({(record.key or b"").decode(): find(record.headers, "traceparent") for record in records})

    tail = Tail(settings, name="spans", topics=[settings.topic(topics.events(0))], handle=note)
    await tail.open()
    with kept_spans() as spans:
        async with dispatching(settings):
            good = await put(probe, settings, b'{"tokens":5}')
            await probe.ended(good)
            process, call = spans.one(f"process {settings.topic(topics.work(QUEUE, 0))}"), spans.one("chat m")
            bad = await put(probe, settings, b'{"status":400}')
            await probe.ended(bad)
        await eventually_async(lambda: {good, bad} <= {*told}, what="the events")
    await tail.close()
    assert f"00-{process.context.trace_id:032x}" == PARENT[:35].decode()
    assert (parent_of(process), parent_of(call)) == (0x00F067AA0BA902B7, process.context.span_id)
    assert (told[good] or b"").decode() == context_of(process)
    assert sim.recent[-2].headers["traceparent"] == context_of(call)
    attributes = dict(call.attributes or {})
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.request.model"] == "m"
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["server.port"] == int(sim.root.rpartition(":")[2])
    assert dict(process.attributes or {})["messaging.message.id"] == good
    failed = spans.all()[-2:]
    assert [dict(span.attributes or {})["error.type"] for span in failed] == ["400", "upstream_error"]
    assert not any("secret" in str(span.to_json()) for span in spans.all())


async def test_without_traces_the_context_reaches_the_upstream(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        await probe.ended(await put(probe, settings, b"{}"))
    assert sim.recent[-1].headers["traceparent"] == PARENT.decode()
