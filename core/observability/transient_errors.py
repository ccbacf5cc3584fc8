"""Lower the log level of transient errors of Kafka clients, unless they persist.

At every start aiokafka logs errors about a group without coordinator, an unknown topic or a moving leader; it retries,
and a moment later succeeds. Such lines must not raise an alert.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError

CLIENTS = ("aiokafka", "faust")
PERSISTENT_S = 30.0
"""Duration after which a repeated line is logged at its original level."""
QUIET_S = 60.0
"""Duration without such a line after which the next one counts as a new event."""
KINDS = 1_000
KIND_CHARS = 200

TRANSIENT = frozenset(
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
"""Message templates of the client without an error object that could be checked for retriability."""


class TransientErrors(logging.Filter):
    """Lower lines of Kafka clients to info while their cause may be transient.

    Args:
        least: the level below which nothing is logged.
    """

    def __init__(self, least: int = logging.INFO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._least = least
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower the level of one line; returns whether it is still logged."""
        if record.levelno > logging.INFO and _passes(record) and not self._lasts(record):
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return record.levelno >= self._least

    def _lasts(self, record: logging.LogRecord) -> bool:
        # Per topic and node: lines about one new queue after another are not persistent.
        kind, now = (record.name, record.getMessage()[:KIND_CHARS]), self._clock()
        began, last = self._seen.get(kind, (now, now))
        if now - last > QUIET_S:
            began = now
        if kind in self._seen or len(self._seen) < KINDS:
            self._seen[kind] = (began, now)
        return now - began >= PERSISTENT_S


def _passes(record: logging.LogRecord) -> bool:
    """Return whether a line is about an error that the client retries."""
    if record.name.partition(".")[0] not in CLIENTS or record.exc_info:
        return False
    values = record.args if isinstance(record.args, tuple) else ()
    return record.msg in TRANSIENT or any(_retriable(value) for value in values)


def _retriable(value: object) -> bool:
    kind: type[Any] = value if isinstance(value, type) else type(value)
    return issubclass(kind, KafkaError) and kind.retriable is True
