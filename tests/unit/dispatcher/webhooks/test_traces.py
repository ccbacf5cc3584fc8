"""Webhooks carry the trace context of their task, and are exported as spans when tracing is enabled."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode
from standardwebhooks import Webhook

from core.deliveries import rendered
from dispatcher.webhooks.notifications import ProgressNotifications
from dispatcher.webhooks.records import from_result
from schemas.headers import find
from schemas.records import Delivery
from tests.support.receiver import Receiver
from tests.support.spans import PARENT, context_of, kept_spans, parent_of
from tests.support.webhook_bench import SECRET, WebhookBench, result, row


def traced(bench: WebhookBench, url: str) -> Delivery:
    return {**bench.new(url), "traceparent": PARENT.decode()}


async def test_every_attempt_carries_the_trace_and_its_signature_stands(
    bench: WebhookBench, receiver: Receiver
) -> None:
    one = traced(bench, f"{receiver.root}/500-then-200")
    await bench.worker.attempt(one)
    await bench.all_delivered([one])
    calls = receiver.calls[one["task_id"]]
    assert [call.headers["traceparent"] for call in calls] == [PARENT.decode()] * 2
    for call in calls:
        stamp = datetime.fromtimestamp(int(call.headers["webhook-timestamp"]), UTC)
        assert call.headers["webhook-signature"] == Webhook(SECRET).sign(one["id"], stamp, call.body.decode())


async def test_without_a_trace_none_is_sent(bench: WebhookBench, receiver: Receiver) -> None:
    one = bench.new(f"{receiver.root}/200")
    await bench.worker.attempt(one)
    [call] = receiver.calls[one["task_id"]]
    assert "traceparent" not in call.headers


async def test_each_attempt_is_a_span_whose_context_the_receiver_is_given(
    bench: WebhookBench, receiver: Receiver
) -> None:
    one = traced(bench, f"{receiver.root}/503-then-200?secret=1")
    with kept_spans() as spans:
        await bench.worker.attempt(one)
        await bench.run()
    first, second = spans.all()
    calls = receiver.calls[one["task_id"]]
    assert [call.headers["traceparent"] for call in calls] == [context_of(span) for span in (first, second)]
    for span in (first, second):
        assert (span.name, span.kind, f"{parent_of(span):016x}") == ("POST", SpanKind.CLIENT, PARENT[36:52].decode())
        assert f"{span.context.trace_id:032x}" == PARENT[3:35].decode()
    about: list[Any] = [dict(span.attributes or {}) for span in (first, second)]
    assert about[0] == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": receiver.port,
        "headrace.webhook_id": one["id"],
        "headrace.event": "completed",
        "headrace.attempt": 1,
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert first.status.status_code is StatusCode.ERROR
    assert (about[1]["headrace.attempt"], about[1]["http.response.status_code"]) == (2, 200)
    assert "error.type" not in about[1]


async def test_an_unreachable_receiver_has_the_kind_of_failure(bench: WebhookBench, receiver: Receiver) -> None:
    receiver.down = True
    one = traced(bench, f"{receiver.root}/200")
    with kept_spans() as spans:
        await bench.worker.attempt(one)
    about: Any = spans.one("POST").attributes
    assert about["error.type"] == "network"
    assert "http.response.status_code" not in about


def test_what_is_written_of_a_delivery_is_in_its_trace() -> None:
    outcome = from_result(result(), 3, now_ms=1, traceparent=PARENT.decode())
    [news] = ProgressNotifications().due_for(
        row(callback_events=["start"], state="processing", traceparent=PARENT.decode()), now_ms=1
    )
    for one in (outcome, news):
        assert find(rendered(b"k", one, now_ms=2).headers, "traceparent") == PARENT
    assert find(rendered(b"k", from_result(result(), 3, now_ms=1), now_ms=2).headers, "traceparent") is None
