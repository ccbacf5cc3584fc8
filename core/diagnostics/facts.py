"""The observations that `doctor` evaluates. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from core.drain_rate import Backlog
from core.kafka.partition_counts import PartitionCount
from schemas.records import Queue


class QueueThroughput(NamedTuple):
    """Lag of a consumer group, and records written and read during the observation."""

    waiting: int = 0
    arrived: int = 0
    read: int = 0
    oldest_ms: int | None = None
    """Age of the oldest unread record, ms, if known."""

    @property
    def growing(self) -> bool:
        """Return whether more records were written than read."""
        return self.waiting > 0 and self.arrived > self.read


NOTHING = QueueThroughput()


class QueueFlow(NamedTuple):
    """Work records of one queue and level that no dispatcher has received."""

    queue: str
    level: int
    flow: QueueThroughput
    readers: int
    """Members of the consumer group."""


class SchedulerSeen(NamedTuple):
    """A scheduler whose heartbeat was observed."""

    name: str
    level: int
    partitions: tuple[int, ...]


class WorkerSeen(NamedTuple):
    """A dispatcher whose heartbeat was observed."""

    name: str
    running: int
    upstreams_up: int
    troubles: str | None


class ClockSkew(NamedTuple):
    """A host clock that differs from the local clock."""

    who: str
    ms: int


class Disk(NamedTuple):
    """Free space on the disk of a folder."""

    path: str
    free_bytes: int
    total_bytes: int


class PullQueueFacts(NamedTuple):
    """A queue and level served by pull workers, from the read model."""

    queue: str
    level: int
    waiting: int
    held: int
    oldest_ms: int


@dataclass(slots=True)
class Facts:
    """All observations; unavailable ones are empty."""

    kafka: str = ""
    partitions: int = 0
    broker_error: str | None = None
    missing_topics: Sequence[str] = ()
    wrong_setting: str | None = None
    """Why kafka.partitions does not fit the topics."""
    partition_counts: Sequence[PartitionCount] = ()
    """Topics with another partition count than declared; of work topics only those with too few."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Tasks topics with more partitions than declared → records in those that no scheduler reads."""
    missing_work: Sequence[str] = ()
    """Missing work topics of registered queues."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Topics with an unsupported compression codec → codec name."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Partitions (topic/number) with records behind an open transaction → number of records."""
    queues: Sequence[Queue] = ()
    work: Sequence[QueueFlow] = ()
    levels: dict[int, QueueThroughput] = field(default_factory=dict)
    """Unprocessed tasks and events per level."""
    schedulers: Sequence[SchedulerSeen] = ()
    dispatchers: Sequence[WorkerSeen] = ()
    callbacks: QueueThroughput = NOTHING
    dead_letters: int = 0
    """Records dead-lettered in the last hour."""
    skews: Sequence[ClockSkew] = ()
    disks: Sequence[Disk] = ()
    pulled: Sequence[PullQueueFacts] = ()
    backlogs: Sequence[Backlog] = ()
    """Depth of the queues that have a limit."""
    ingress: Sequence[str] = ()
    """Problems that the ingress reports about itself."""
    watched_s: float = 0.0


Weight = Literal["problem", "note"]


class Finding(NamedTuple):
    """A problem or note, with its recommended action."""

    weight: Weight
    """`problem` makes `doctor` exit with code 1, `note` does not."""
    code: str
    subject: str
    what: str
    next_step: str
