"""Pair the results of a replay with those of its originals, read from results.LEVEL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from typing import NamedTuple

from aiokafka import TopicPartition

from core.kafka.log_reader import LogReader, LogRecord
from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from headrace.replay.compare import Pair, ReplayedAnswer, answer_of, verdict_of
from headrace.replay.read import EARLY_MS, Home, offset_range, slices, with_retries
from headrace.replay.state import State
from schemas import ids, topics
from schemas.codec import RESULT, SchemaError
from schemas.framing import FramingError
from schemas.headers import find
from schemas.ids import REPLAY_STEP_S
from schemas.records import Result

MARK = b"-R-"


class Which(NamedTuple):
    """Selects results: those of one replay, or of all replays into one queue."""

    queue: str | None
    start_s: int | None
    from_ms: int | None

    @classmethod
    def of(cls, state: State) -> Which:
        """Return the selection for a replay."""
        return cls(state.target.queue_to, state.start_s, state.created_ms)

    def fits(self, record: LogRecord) -> bool:
        """Return whether a result is selected, by key and headers."""
        if record.key is None or MARK not in record.key:
            return False
        if self.queue is not None and find(record.headers, "x-queue") != self.queue.encode():
            return False
        if self.start_s is None:
            return True
        try:
            before = self.start_s - ids.parse(record.key.decode(errors="replace")).time_s
        except ids.IdError:
            return False
        return before >= 0 and before % REPLAY_STEP_S == 0


class Comparison(NamedTuple):
    """All pairs, and the number of results superseded by a later replay of the same original."""

    pairs: list[Pair]
    superseded: int


async def compared(
    settings: Settings,
    lookup: LogReader,
    blobs: BlobStore,
    which: Which,
    *,
    excerpts: bool,
    on_read: Callable[[int], None],
) -> Comparison:
    """Pair every result of a replay with that of its original; raises Unavailable."""
    reader = _Reader(settings, lookup, blobs, excerpts=excerpts, on_read=on_read)
    every = [(level, partition) for level in (0, 1) for partition in range(settings.kafka.partitions)]
    replays: dict[str, tuple[int, ReplayedAnswer]] = {}
    superseded = 0
    for home in every:
        async for result, answer in reader.outcomes(home, which.from_ms, which.fits):
            if (original := result["replay_of"]) is None:
                continue
            known = replays.get(original)
            superseded += known is not None
            if known is None or known[0] <= result["created_ms"]:
                replays[original] = result["created_ms"], answer
    originals = await _originals(reader, replays)
    pairs = [
        Pair(verdict_of(originals.get(original), answer), originals.get(original), answer, original)
        for original, (_, answer) in replays.items()
    ]
    return Comparison(pairs, superseded)


async def _originals(reader: _Reader, wanted: Collection[str]) -> dict[str, ReplayedAnswer]:
    """Find the results of tasks, each starting at the time in its id."""
    since: dict[Home, int] = {}
    keys: dict[Home, set[bytes]] = defaultdict(set)
    for text in wanted:
        one = ids.parse(text)
        home, at_ms = (one.level, one.partition), max(0, one.time_s * 1000 - EARLY_MS)
        since[home] = min(since.get(home, at_ms), at_ms)
        keys[home].add(text.encode())
    found: dict[str, ReplayedAnswer] = {}
    for home, from_ms in since.items():
        async for result, answer in reader.outcomes(home, from_ms, partial(_is_one_of, keys[home])):
            found.setdefault(result["id"], answer)
    return found


def _is_one_of(keys: Collection[bytes], record: LogRecord) -> bool:
    return record.key in keys


class _Reader:
    def __init__(
        self, settings: Settings, lookup: LogReader, blobs: BlobStore, *, excerpts: bool, on_read: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._lookup = lookup
        self._blobs = blobs
        self._excerpts = excerpts
        self._on_read = on_read

    async def outcomes(
        self, home: Home, from_ms: int | None, wanted: Callable[[LogRecord], bool]
    ) -> AsyncIterator[tuple[Result, ReplayedAnswer]]:
        """Decode the requested results of one partition."""
        tp = TopicPartition(self._settings.topic(topics.results(home[0])), home[1])
        span = await offset_range(self._lookup, tp, from_ms=from_ms)
        if span is None:
            return
        async for piece in slices(self._lookup, tp, *span):
            self._on_read(len(piece.records))
            for record in piece.records:
                if record.value is not None and wanted(record):
                    try:
                        result = RESULT.decode(record.value)
                    except (FramingError, SchemaError):
                        continue  # of another program
                    yield result, answer_of(result, await self._body(result), excerpt=self._excerpts)

    async def _body(self, result: Result) -> bytes | None:
        stored = result["body_ref"]
        if stored is None:
            return result["body"] or b""
        try:
            return await with_retries(lambda: self._blobs.get(stored))
        except (BlobMissing, BlobCorrupt):
            return None
