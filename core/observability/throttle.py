"""Keep a library that repeats itself from filling the disk: one line of a kind in ten seconds, with a count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

INTERVAL_S = 10.0
KINDS = 1_000
"""Kinds remembered; libraries have fewer, and what is beyond is let through."""


class Throttle(logging.Filter):
    """Let one line of each kind through per interval; a kind is logger and message before its values are put in.

    Only for loggers below the given names. While a broker is away aiokafka says so several times a second, for each of
    its connections: an outage of hours was gigabytes.
    """

    def __init__(self, names: tuple[str, ...], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._names = names
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide about one line; one that is let through tells how many like it were not."""
        if record.name.partition(".")[0] not in self._names or not isinstance(record.msg, str):
            return True
        kind, now = (record.name, record.msg), self._clock()
        told, kept_back = self._last.get(kind, (-INTERVAL_S, 0))
        if now - told < INTERVAL_S:
            self._last[kind] = (told, kept_back + 1)
            return False
        if kind in self._last or len(self._last) < KINDS:
            self._last[kind] = (now, 0)
        if kept_back:
            record.msg = f"{record.msg} (and {kept_back} alike)"
        return True
