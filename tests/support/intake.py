"""The intake of task records that were written to Kafka directly, over doubles."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from core.errors import RateLimited
from core.kafka.producer import Record
from core.settings.models import Settings
from schemas.records import Queue
from streams.intake.decode import InvalidRecord, Submission
from streams.intake.gateway import TaskIntake
from tests.support.records import queue

OWNER = "key-d97332b71bf9"
NOW_S = 1_795_000_000.0
Headers = list[tuple[str, bytes]]


class QueueRegistry:
    """The directory of queues: it registers every queue, or none because it is full."""

    def __init__(self, *names: str, full: bool = False) -> None:
        self.known = {name: queue(name) for name in names}
        self.full = full
        self.registered: list[tuple[str, Any, Any]] = []

    def get(self, name: str) -> Queue | None:
        return self.known.get(name)

    async def register(self, _: object, name: str, *, endpoint: str | None, owner: str | None) -> Queue:
        if self.full:
            raise RateLimited("500 queues are registered and kafka.max_queues allows no more", field="queue")
        self.registered.append((name, endpoint, owner))
        return self.known.setdefault(name, queue(name))


class TransactionDouble:
    """The part of a transaction that the task intake uses."""

    def __init__(self, *, id_in_use: bool = False) -> None:
        self.records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.reasons: Counter[str] = Counter()
        self.results: dict[Any, Any] = {}
        self.rows: dict[Any, Any] = {}
        self._id_in_use = id_in_use

    def id_in_use(self, *_: object) -> bool:
        return self._id_in_use


def intake(queues: QueueRegistry, **sections: Any) -> TaskIntake:
    """Build the intake of a level; it compares no times with the clock."""
    settings = Settings.model_validate(sections)
    made: Any = TaskIntake(settings, 0, producer=None, queues=queues)  # type: ignore[arg-type]  # doubles
    made._trust = replace(made._trust, now_ms=None)
    return made  # type: ignore[no-any-return]


def message(*, partition: int = 0, headers: Headers | None = None, **members: Any) -> Any:
    """Build a task record as a producer of its own writes it."""
    value = json.dumps({"queue": "chat", "endpoint": "/v1/x", "data": {}, **members}).encode()
    return SimpleNamespace(
        topic="headrace.tasks.online",
        partition=partition,
        offset=9,
        timestamp=NOW_S,
        key=b"k",
        value=value,
        headers=headers or [],
    )


async def admit(
    made: TaskIntake, record: Any, transaction: Any = None, *, now_ms: int = 0
) -> Submission | InvalidRecord | None:
    """Take a record all the way in."""
    one = made.read(record)
    assert isinstance(one, Submission), one
    await made.prepare([one])
    return made.admit(one, record, transaction or TransactionDouble(), now_ms=now_ms)
