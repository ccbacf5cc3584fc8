"""What a Kafka client says of a thing that passes by itself is no error, unless it lasts.

At every start of a stack aiokafka logs as errors that a group has no coordinator yet, that a topic is not known yet, or
that a leader moves: it asks again, and a moment later all is well. Whoever watches a log for errors was called for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError

CLIENTS = ("aiokafka", "faust")
LASTS_S = 30.0
"""From here on it is told at the level that the client chose."""
QUIET_S = 60.0
"""After so long without a word of its kind it is another event."""
KINDS = 1_000
KIND_CHARS = 200

PASSING = frozenset(
    (
        "Topic %s not found in cluster metadata",
        "Topic %s is not available during auto-create initialization",
        "OffsetFetchRequest -- unknown topic %s",
        "Unable to update metadata from %s",
        "Unable connect to node with id %s: %s",
        'Unable connect to "%s:%s": %s',
        'Unable to request metadata from "%s:%s": %s',
        "Marking the coordinator dead (node %s)for group %s.",
        "Heartbeat failed for group %s: coordinator (node %s) is either not started or not valid",
        "Heartbeat failed for group %s because it is rebalancing",
        "Heartbeat failed for group %s: generation id is not  current.",
        "Heartbeat failed: local member_id was not recognized; resetting and re-joining group",
        "OffsetCommit failed for group %s due to group error (%s), will rejoin",
    )
)
"""Lines that carry no error of which one could ask whether it is retriable, in the client's very words."""


class TransientErrors(logging.Filter):
    """Take lines of Kafka clients down to info for as long as what they tell may pass.

    Args:
        least: the level below which nothing is logged.
    """

    def __init__(self, least: int = logging.INFO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._least = least
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower the level of one line, and tell whether it is logged still."""
        if record.levelno > logging.INFO and _passes(record) and not self._lasts(record):
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return record.levelno >= self._least

    def _lasts(self, record: logging.LogRecord) -> bool:
        # Each topic and node by itself: what is said of one new queue after the other does not last.
        kind, now = (record.name, record.getMessage()[:KIND_CHARS]), self._clock()
        began, last = self._seen.get(kind, (now, now))
        if now - last > QUIET_S:
            began = now
        if kind in self._seen or len(self._seen) < KINDS:
            self._seen[kind] = (began, now)
        return now - began >= LASTS_S


def _passes(record: logging.LogRecord) -> bool:
    """Tell a line about an error that its client tries again after."""
    if record.name.partition(".")[0] not in CLIENTS or record.exc_info:
        return False
    values = record.args if isinstance(record.args, tuple) else ()
    return record.msg in PASSING or any(_retriable(value) for value in values)


def _retriable(value: object) -> bool:
    kind: type[Any] = value if isinstance(value, type) else type(value)
    return issubclass(kind, KafkaError) and kind.retriable is True
