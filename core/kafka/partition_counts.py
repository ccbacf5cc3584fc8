"""Compare the partition counts of the declared topics with those of the broker, and say what to do. Pure.

Apart from core/kafka/admin.py, because the checks of `headrace doctor` and `/readyz` use the same sentences. Headrace
writes to explicit partitions below the declared count, so a topic with more partitions works; only producers of other
programs, whose partitioner uses every partition, can write records to the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from schemas import topics
from schemas.topics import Topic

APPLY = "run `headrace topics apply`"


class PartitionCount(NamedTuple):
    """A topic whose partition count differs from the declared one."""

    topic: str
    """With its prefix."""
    actual: int
    declared: int
    foreign: bool = False
    """Whether other programs may write to it: a tasks topic."""

    @property
    def short(self) -> bool:
        """Tell whether partitions are missing."""
        return self.actual < self.declared

    @property
    def problem(self) -> str:
        """Describe the difference in a sentence."""
        if self.short:
            return f"topic {self.topic} has {self.actual} partitions and needs {self.declared}"
        unread = f"records in partitions {self.declared} and above are not read" if self.foreign else "it works"
        return f"topic {self.topic} has {self.actual} partitions instead of {self.declared}; {unread}"

    @property
    def remedy(self) -> str:
        """Describe what to do."""
        if self.short:
            return f"{APPLY}, which adds the missing partitions"
        if self.foreign:
            return (
                f"let producers write to partitions 0 to {self.declared - 1} only, and send the other records again; "
                "Kafka removes partitions only with the whole topic"
            )
        return f"nothing: only its first {self.declared} partitions are used"


def differing(wanted: Mapping[str, Topic], actual: Mapping[str, int]) -> list[PartitionCount]:
    """List existing topics whose partition count differs; `wanted` and `actual` have names with their prefix."""
    foreign = {topics.tasks(level) for level in range(len(topics.LEVELS))}
    return [
        PartitionCount(name, actual[name], topic.partitions, topic.name in foreign)
        for name, topic in wanted.items()
        if actual.get(name, topic.partitions) != topic.partitions
    ]


def created_with(wanted: Mapping[str, Topic], actual: Mapping[str, int], *, partitions: int) -> int:
    """Return the `kafka.partitions` with which the topics were created, as far as they show it.

    That is the count that most topics have whose count follows from the setting. It differs from the setting when that
    was changed, and not when somebody re-created or extended a single topic.
    """
    counts = Counter(
        actual[name] for name, topic in wanted.items() if topic.partitions == partitions and name in actual
    )
    return max(counts, key=lambda count: (counts[count], count == partitions), default=partitions)


def wrong_setting(wanted: Mapping[str, Topic], actual: Mapping[str, int], *, partitions: int) -> str | None:
    """Describe a `kafka.partitions` with which the topics were not created; None when it is right."""
    created = created_with(wanted, actual, partitions=partitions)
    if created == partitions:
        return None
    return (
        f"kafka.partitions is {partitions}, but the topics were created with {created} partitions, and that number is "
        f"fixed for the life of a cluster: set kafka.partitions to {created}"
    )


def warnings(counts: Iterable[PartitionCount]) -> list[str]:
    """Return the sentences about topics with another partition count, with what to do, but not where it is nothing."""
    return [f"{one.problem}; {one.remedy}" for one in counts if one.short or one.foreign]
