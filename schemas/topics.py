"""All topics, declared once: source of broker settings, documentation and registry subjects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

LEVELS = ("online", "offline")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

TASKS, EVENTS, STATUS, RESULTS, WORK = "tasks", "events", "status", "results", "work"
DEAD_LETTER_PARTITIONS = 4
CHUNKS, CONTROLS, QUEUES, INSTANCES, DEAD_LETTERS = "chunks", "controls", "queues", "instances", "dead-letters"
DELIVERIES, DISABLED = "deliveries", "webhooks.disabled"
BATCHES, FILES, USAGE = "batches", "files", "usage"
RETRY_DELAYS_S = (0, 5, 60, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Delays of the retry topics; other delays pass through several of them. 0 is for deliveries due within seconds."""
RETRY_PARTITIONS = 8
"""Maximum partitions of a retry topic: its records are small, and each sender has them all in memory."""
DELIVERY_RETENTION_MS = 8 * DAY_MS
"""Longer than the retention of results: a delivery that can be sent again is still listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic; `name` has no prefix."""

    name: str
    key: str
    partitions: int
    retention_ms: int | None
    written_by: str
    read_by: str
    schema: str | None
    compact: bool = False
    extra: dict[str, str] = field(default_factory=dict)

    def configs(self, *, max_message_bytes: int, min_insync_replicas: int) -> dict[str, str]:
        """Return the broker settings of this topic."""
        policies = [name for name, on in (("compact", self.compact), ("delete", self.retention_ms is not None)) if on]
        configs = {
            "cleanup.policy": ",".join(policies),
            "max.message.bytes": str(max_message_bytes),
            "min.insync.replicas": str(min_insync_replicas),
        }
        if self.retention_ms is not None:
            configs["retention.ms"] = str(self.retention_ms)
            configs["retention.bytes"] = "-1"
            # Segments are deleted as a whole; ten per retention keep disk usage close to the configured retention.
            configs["segment.ms"] = str(max(self.retention_ms // 10, HOUR_MS // 6))
        else:
            configs["segment.ms"] = str(DAY_MS)
        if self.compact:
            configs["min.compaction.lag.ms"] = "60000"  # followers see each state before compaction
        return configs | self.extra


def level_name(level: int) -> str:
    """Return online or offline."""
    return LEVELS[level]


def tasks(level: int) -> str:
    """Name the topic of new tasks."""
    return f"{TASKS}.{LEVELS[level]}"


def events(level: int) -> str:
    """Name the topic of events."""
    return f"{EVENTS}.{LEVELS[level]}"


def status(level: int) -> str:
    """Name the topic of state records."""
    return f"{STATUS}.{LEVELS[level]}"


def results(level: int) -> str:
    """Name the topic of results."""
    return f"{RESULTS}.{LEVELS[level]}"


def work(queue: str, level: int) -> str:
    """Name the work topic of a queue."""
    return f"{WORK}.{queue}.{LEVELS[level]}"


def retry(delay_s: int) -> str:
    """Name the retry topic of a delay."""
    return f"webhooks.retry.{delay_s}"


def retry_partitions(partitions: int) -> int:
    """Return the number of partitions of a retry topic: a third of P, because there are many of these topics."""
    return max(1, min(partitions // 3, RETRY_PARTITIONS))


def declared(*, partitions: int) -> Iterator[Topic]:
    """Yield every topic except the work topics of queues."""
    p = partitions
    for level, keep in ((0, DAY_MS), (1, 15 * DAY_MS)):
        yield Topic(
            name=tasks(level),
            key="task id or null",
            partitions=p,
            retention_ms=keep,
            schema="task",
            written_by="ingress, direct producers",
            read_by="scheduler, replay",
        )
        yield Topic(
            name=events(level),
            key="task id",
            partitions=p,
            retention_ms=2 * DAY_MS,
            schema="event",
            written_by="ingress, dispatcher, timers",
            read_by="scheduler",
        )
        yield Topic(
            name=status(level),
            key="task id",
            partitions=p,
            retention_ms=None,
            schema="status",
            compact=True,
            written_by="scheduler (its table's changelog)",
            read_by="ingress, ops, analytics",
        )
        yield Topic(
            name=results(level),
            key="task id",
            partitions=p,
            retention_ms=7 * DAY_MS,
            schema="result",
            written_by="scheduler",
            read_by="ingress, webhook sender, analytics",
        )
    yield Topic(
        name=CHUNKS,
        key="task id",
        partitions=p,
        retention_ms=HOUR_MS,
        schema="chunk",
        written_by="dispatcher",
        read_by="ingress",
    )
    yield Topic(
        name=CONTROLS,
        key="task id",
        partitions=1,
        retention_ms=2 * DAY_MS,
        schema="control",
        written_by="scheduler",
        read_by="every dispatcher and ingress",
    )
    yield Topic(
        name=QUEUES,
        key="queue name",
        partitions=1,
        retention_ms=None,
        schema="queue",
        compact=True,
        written_by="ingress, scheduler",
        read_by="all roles",
    )
    yield Topic(
        name=FILES,
        key="file id",
        partitions=1,
        retention_ms=None,
        schema="file",
        compact=True,
        written_by="ingress",
        read_by="ingress, batch submitter",
    )
    yield Topic(
        name=BATCHES,
        key="batch id",
        partitions=p,
        retention_ms=None,
        schema="batch",
        compact=True,
        written_by="scheduler (its table's changelog)",
        read_by="ingress, batch submitter and writer, webhook sender",
    )
    yield Topic(
        name=USAGE,
        key="task id",
        partitions=p,
        retention_ms=90 * DAY_MS,
        schema="usage",
        written_by="scheduler",
        read_by="analytics",
    )
    yield Topic(
        name=INSTANCES,
        key="instance name",
        partitions=1,
        retention_ms=DAY_MS,
        schema="instance",
        written_by="ingress",
        read_by="ingress",
    )
    yield from _webhooks(partitions)
    yield Topic(
        name=DEAD_LETTERS,
        key="original key",
        partitions=DEAD_LETTER_PARTITIONS,
        retention_ms=30 * DAY_MS,
        schema=None,
        written_by="every processor",
        read_by="ops",
    )


def _webhooks(partitions: int) -> Iterator[Topic]:
    yield Topic(
        name=DELIVERIES,
        key="task id/event",
        partitions=partitions,
        retention_ms=DELIVERY_RETENTION_MS,
        schema="delivery",
        compact=True,
        written_by="webhook sender",
        read_by="ingress, ops",
    )
    for delay_s in RETRY_DELAYS_S:
        yield Topic(
            name=retry(delay_s),
            key="task id",
            partitions=retry_partitions(partitions),
            retention_ms=7 * DAY_MS,
            schema="delivery",
            written_by="webhook sender, ingress (resend)" if delay_s == 0 else "webhook sender",
            read_by="webhook sender",
        )
    yield Topic(
        name=DISABLED,
        key="tenant and hash of the URL, or delivery id",
        partitions=1,
        retention_ms=8 * DAY_MS,
        schema="delivery",
        compact=True,
        written_by="webhook sender",
        read_by="webhook sender",
    )


def work_topic(queue: str, level: int, *, partitions: int) -> Topic:
    """Declare the work topic of one queue and level."""
    return Topic(
        name=work(queue, level),
        key="task id",
        partitions=partitions,
        retention_ms=15 * DAY_MS,
        schema="work",
        written_by="scheduler",
        read_by="inference consumers, also third-party ones",
    )
