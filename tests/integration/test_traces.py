"""One trace through all roles as processes: what a collector is told of a task, and what the task's records carry."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from aiokafka import TopicPartition
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.wire import Exchange, RawServer, head
from core.kafka.topic_follower import Records, TopicFollower
from schemas import topics
from schemas.headers import find
from tests.support.receiver import Receiver
from tests.support.site import Client, keys_file, running_site
from tests.support.spans import PARENT
from tests.support.waiting import eventually_async


class Collector(RawServer):
    """An OTLP receiver; `spans` are service and span in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[str, Span]] = []

    def handle(self, exchange: Exchange) -> None:
        """Take an export."""
        request = ExportTraceServiceRequest.FromString(exchange.request.body)
        for one in request.resource_spans:
            named = {attribute.key: attribute.value.string_value for attribute in one.resource.attributes}
            self.spans += [(named["service.name"], span) for scope in one.scope_spans for span in scope.spans]
        exchange.finish(head(200, "application/x-protobuf", 0))

    def named(self, beginning: str) -> list[tuple[str, Span]]:
        """Return the spans whose name begins so, the earliest first."""
        found = [(service, span) for service, span in self.spans if span.name.startswith(beginning)]
        return sorted(found, key=lambda one: one[1].start_time_unix_nano)


async def test_a_collector_sees_one_trace_and_every_record_is_in_it(kafka: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(Collector())
        receiver = await stack.enter_async_context(Receiver())
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        site = await stack.enter_async_context(
            running_site(
                kafka,
                tmp_path,
                ingresses=1,
                levels=["online"],
                env=exporting,
                keys=keys_file("traced"),
                streams__retry_base_s=0.1,
            )
        )
        carried: dict[str, set[bytes | None]] = {}

        def note(tp: TopicPartition, records: Records) -> None:
            for record in records:
                if find(record.headers, "x-queue") == b"traced" and not tp.topic.endswith("status.online"):
                    carried.setdefault(tp.topic, set()).add(find(record.headers, "traceparent"))

        names = [topics.tasks(0), topics.events(0), topics.results(0), topics.work("traced", 0)]
        client = Client(site, "traced")
        answer = await client.put(
            headers={"traceparent": PARENT.decode()}, fail_times=1, members={"callback_url": f"{receiver.root}/200"}
        )
        assert answer.status == 200, answer.body
        topic_names = [site.settings.topic(name) for name in names]
        tail = TopicFollower(site.settings, name="traces", topics=topic_names, handle=note)
        await tail.open()
        await eventually_async(lambda: site.settings.topic(topics.results(0)) in carried, what="a result")
        await eventually_async(lambda: len(collector.named("chat")) == 2, what="the spans of both calls")
        await eventually_async(lambda: len(collector.named("process")) == 2, what="both attempts")
        await eventually_async(lambda: len(collector.named("POST")) == 1, what="the callback")
        await tail.close()
    [(sender, sent)] = collector.named("send")
    (worker, first), (_, second) = collector.named("process")
    calls = [span for _, span in collector.named("chat")]
    assert (sender, worker) == ("headrace-ingress", "headrace-dispatcher")
    assert {span.trace_id.hex() for _, span in collector.spans} == {PARENT[3:35].decode()}
    assert sent.parent_span_id.hex() == PARENT[36:52].decode()
    assert first.parent_span_id == sent.span_id
    assert [call.parent_span_id for call in calls] == [first.span_id, second.span_id]
    assert {context and context[3:35] for contexts in carried.values() for context in contexts} == {PARENT[3:35]}
    assert site.arrivals(answer.task_id) == 2
    [(caller, told)] = collector.named("POST")
    assert (caller, told.parent_span_id) == ("headrace-dispatcher", second.span_id)
    assert receiver.headers["traceparent"][36:52] == told.span_id.hex()
    assert site.simulator.recent[-1].headers["traceparent"][36:52] == calls[1].span_id.hex()
