"""A webhook delivery worker with real HTTP calls, and Kafka and time in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from itertools import count
from typing import Any

from core.settings.models import Settings
from dispatcher.webhooks.circuit_breaker import HostCircuitBreakers
from dispatcher.webhooks.delivery_worker import DeliveryWorker
from dispatcher.webhooks.disabled_urls import DisabledUrls
from dispatcher.webhooks.http_client import WebhookClient
from dispatcher.webhooks.in_flight import WaitingTasks
from dispatcher.webhooks.records import from_result
from schemas import topics
from schemas.callback_url import CallbackPolicy
from schemas.codec import DELIVERY
from schemas.kafka_record import AddressedRecord
from schemas.records import Delivery, Result, Status
from tests.support.bella import row_of
from tests.support.results import result_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENTS = ["start", "progress", "expired"]
_ids = count()


def result(**changes: Any) -> Result:
    """Build the result of a task with a callback."""
    usual: dict[str, Any] = {"mode": "callback", "callback_url": "http://there/", "owner": None, "body": None}
    return result_of("TASK-1-0-C-261118110640-0001-000001", **usual | changes)


def row(number: int = 1, **changes: Any) -> Status:
    """Build the row of a running task whose callback subscribes to notifications."""
    task: Any = {
        "id": f"TASK-7-0-C-261118110640-0001-{number:06d}",
        "queue": "chat",
        "endpoint": "/v1/x",
        "mode": "callback",
        "owner": "key-one",
        "model": None,
        "callback_url": "http://there/",
        "trace_id": None,
        "created_ms": 0,
        "timeout_ms": 60_000,
    }
    return row_of(task, 0, **{"callback_events": EVENTS, "state": "processing", "started_ms": 10, **changes})


class WebhookBench:
    """Kafka and time in memory: records are stored by topic, and time advances to the next due delivery."""

    def __init__(self, **hooks: Any) -> None:
        self.settings = Settings.model_validate({"webhooks": {"secret": [SECRET], "timeout_s": 300, **hooks}})
        self.now_ms = 1_800_000_000_000
        self.waiting: list[Delivery] = []
        self.rows: dict[str, Delivery] = {}
        self.dead_letters: list[bytes] = []
        rng = random.Random(5)
        self.client = WebhookClient(self.settings.webhooks, CallbackPolicy(private=True))
        self.disabled = DisabledUrls(self.settings, name="test")
        self.worker = DeliveryWorker(
            self.settings,
            client=self.client,
            bodies=self,
            disabled=self.disabled,
            outbox=self,  # type: ignore[arg-type]
            hosts=HostCircuitBreakers(self.settings.webhooks.per_host, clock=lambda: self.now_ms / 1000),
            waiting_tasks=WaitingTasks(),
            clock=lambda: self.now_ms,
            rng=rng.random,
        )

    async def of(self, delivery: Delivery, _: Result | None) -> bytes:
        """Replace the stored result."""
        return b'{"status_code":200,"request_id":"%b","body":{}}' % delivery["task_id"].encode()

    async def write_all(self, items: Iterable[AddressedRecord]) -> bool:
        """Replace Kafka."""
        for item in items:
            name = item.topic.removeprefix(self.settings.kafka.topic_prefix)
            if name.startswith("webhooks.retry."):
                self.waiting.append(DELIVERY.decode(item.record.value or b""))
            elif name == topics.DELIVERIES:
                row = DELIVERY.decode(item.record.value or b"")
                self.rows[row["task_id"]] = row
            elif name == topics.DISABLED:
                marks: Any = [item.record]
                self.disabled.apply(None, marks)  # type: ignore[arg-type]
            else:
                self.dead_letters.append(item.record.key or b"")
        return True

    def new(self, url: str, **changes: Any) -> Delivery:
        """Create a delivery."""
        task_id = f"TASK-1-0-C-261118110640-0001-{next(_ids):06d}"
        return from_result(result(id=task_id, callback_url=url, **changes), 0, now_ms=self.now_ms)

    async def run(self, *, until_ms: int | None = None) -> None:
        """Deliver everything that is due and advance the time, until nothing waits or a time is reached."""
        while self.waiting:
            next_ms = min(each["due_ms"] or 0 for each in self.waiting)
            if until_ms is not None and next_ms > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = max(self.now_ms, next_ms)
            due = [each for each in self.waiting if (each["due_ms"] or 0) <= self.now_ms + 100]
            self.waiting = [each for each in self.waiting if each not in due]
            await asyncio.gather(*(self.worker.attempt(each) for each in due))

    async def all_delivered(self, begun: list[Delivery]) -> None:
        """Run to the end, and assert that every delivery was accepted."""
        await self.run()
        states = [self.rows[each["task_id"]]["state"] for each in begun]
        assert set(states) == {"delivered"}
        assert self.dead_letters == []
