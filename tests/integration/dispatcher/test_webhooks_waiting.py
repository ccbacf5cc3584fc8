"""Callbacks that wait in Kafka: seen from outside, also by a sender that has just started, and ended by a resend."""

from __future__ import annotations

import asyncio

import pytest

from core import deliveries
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.webhooks import lag
from dispatcher.webhooks.service import GROUP
from tests.support.dispatcher_probe import WITHIN_S, DispatcherProbe, dispatching, now_ms
from tests.support.receiver import Receiver
from tests.support.waiting import eventually_async
from tests.support.webhook_probe import RESULTS


@pytest.fixture(scope="module")
def changes() -> dict[str, object]:
    """Have a failed delivery wait for longer than the test."""
    return {
        "dispatcher__component": "webhooks",
        "dispatcher__shutdown_grace_s": 1,
        "dispatcher__commit_interval_s": 0.2,
        "webhooks__retry_delays": [300],
    }


def waiting() -> int:
    return int(metrics.WEBHOOK_PENDING._value.get())


def superseded() -> int:
    return int(metrics.DELIVERIES.labels("superseded")._value.get())


async def test_what_waits_is_counted_across_a_restart_and_a_resend_ends_it(
    probe: DispatcherProbe, settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "POLL_INTERVAL_S", 0.5)
    url, began_ms = f"{receiver.root}/503-then-200-then-404", now_ms()
    async with dispatching(settings):
        task = await probe.result(url)
        await eventually_async(lambda: receiver.got[task], what="the first attempt")
        await eventually_async(lambda: waiting() == 1, what="the delivery that waits")
        await probe.committed(GROUP, *RESULTS)
    metrics.WEBHOOK_PENDING.set(0)
    metrics.WEBHOOK_OLDEST.set(0)
    async with dispatching(settings):
        await eventually_async(lambda: waiting() == 1, what="what waited before the start")
        assert 0 < metrics.WEBHOOK_OLDEST._value.get() <= (now_ms() - began_ms) / 1000 + 1
        first = deliveries.new_delivery(
            task,
            "completed",
            name="completed",
            url=url,
            owner="key-one",
            level=0,
            result_offset=0,
            payload=None,
            now_ms=began_ms,
        )
        round_ = deliveries.resent(first, now_ms=now_ms())
        await probe.producer.send(*deliveries.retry_record(settings, round_, delay_s=0, now_ms=now_ms()))
        await eventually_async(lambda: len(receiver.got[task]) == 2, what="the resend")
        before = superseded()
        due = deliveries.retry_record(
            settings, {**first, "due_ms": began_ms + 1, "step": 1}, delay_s=0, now_ms=now_ms()
        )
        async with asyncio.timeout(WITHIN_S):
            while superseded() == before:
                # Its mark comes back to the sender within some ms; until then the old round would be posted.
                await probe.producer.send(*due)
                await asyncio.sleep(0.5)
