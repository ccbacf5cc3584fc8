"""What `doctor` goes by: things that were seen, without a judgement. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from core.drain_rate import Backlog
from schemas.records import Queue


class QueueThroughput(NamedTuple):
    """What waits for a reader, and what moved while it was watched."""

    waiting: int = 0
    arrived: int = 0
    read: int = 0
    oldest_ms: int | None = None
    """Age of the oldest that waits, as far as it is known."""

    @property
    def growing(self) -> bool:
        """Tell whether more came than was read."""
        return self.waiting > 0 and self.arrived > self.read


NOTHING = QueueThroughput()


class QueueFlow(NamedTuple):
    """The work of one queue and level that no worker has taken."""

    queue: str
    level: int
    flow: QueueThroughput
    readers: int
    """Consumers in its group."""


class SchedulerSeen(NamedTuple):
    """A scheduler that spoke while it was listened to."""

    name: str
    level: int
    partitions: tuple[int, ...]


class WorkerSeen(NamedTuple):
    """A dispatcher that spoke while it was listened to."""

    name: str
    running: int
    upstreams_up: int
    troubles: str | None


class ClockSkew(NamedTuple):
    """A clock that differs from this one."""

    who: str
    ms: int


class Disk(NamedTuple):
    """Room on the disk of a folder."""

    path: str
    free_bytes: int
    total_bytes: int


class PullQueueFacts(NamedTuple):
    """A queue and level that workers fetch over HTTP, as the read model shows it."""

    queue: str
    level: int
    waiting: int
    held: int
    oldest_ms: int


@dataclass(slots=True)
class Facts:
    """Everything that was seen; what could not be seen is empty."""

    kafka: str = ""
    partitions: int = 0
    broker_error: str | None = None
    missing_topics: Sequence[str] = ()
    widths: Sequence[tuple[str, int, int]] = ()
    """Topics with another number of partitions than they need: name, what is there, what is needed."""
    missing_work: Sequence[str] = ()
    """Work topics of registered queues that are not there."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Topics whose records are written in a codec that cannot be read → its name."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Partitions (topic/number) in which records wait for the end of a transaction → how many."""
    queues: Sequence[Queue] = ()
    work: Sequence[QueueFlow] = ()
    lanes: dict[int, QueueThroughput] = field(default_factory=dict)
    """Tasks and events that the scheduler of a level has not judged."""
    schedulers: Sequence[SchedulerSeen] = ()
    dispatchers: Sequence[WorkerSeen] = ()
    callbacks: QueueThroughput = NOTHING
    dead_letters: int = 0
    """Buried within the last hour."""
    skews: Sequence[ClockSkew] = ()
    disks: Sequence[Disk] = ()
    pulled: Sequence[PullQueueFacts] = ()
    backlogs: Sequence[Backlog] = ()
    """Of the queues that have a limit."""
    ingress: Sequence[str] = ()
    """What an ingress says is wrong with itself."""
    watched_s: float = 0.0


Weight = Literal["problem", "note"]


class Finding(NamedTuple):
    """Something that is stuck, or worth to know, and what to do about it."""

    weight: Weight
    """A problem ends `doctor` with exit code 1, a note does not."""
    code: str
    subject: str
    what: str
    next_step: str
