"""The dead-letter queue for operators: list and read dead letters, and redrive them to their original topics.

A dead letter stays until its retention ends. A redrive is recorded by a mark, a record without a value in the same
partition; so a dead letter is redriven once unless a repetition is requested.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from aiokafka import TopicPartition

from core.dead_letters.record import ADDED_HEADERS
from core.errors import NotFound
from core.kafka.cluster import Cluster
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.producer import Producer, Record
from core.kafka.record_signature import SIGNATURE_HEADER
from core.settings.models import Settings
from schemas import topics
from schemas.headers import find
from schemas.task_decoder import has_internal_headers

REDRIVEN_HEADER = "x-redriven"
FETCH_WINDOW = 200
SCAN_LIMIT = 5_000
"""Maximum records of a partition read for one page; with a rare filter a page may be empty and have a next page."""
PARTITIONS = range(topics.DEAD_LETTER_PARTITIONS)


class DeadLetter(NamedTuple):
    """One dead letter."""

    found: LogRecord
    redriven_ms: int | None = None

    @property
    def id(self) -> str:
        """Return its id: partition and offset."""
        return f"{self.found.partition}-{self.found.offset}"

    def header(self, name: str) -> str | None:
        """Return a header as text."""
        value = find(self.found.headers, name)
        return None if value is None else value.decode(errors="replace")


class DeadLetterFilter(NamedTuple):
    """Which dead letters to select; None means any."""

    reason: str | None = None
    """A substring of the reason, case-insensitive."""
    topic: str | None = None
    """The original topic, with or without the prefix."""
    redriven: bool | None = None

    def match(self, dead: DeadLetter, prefix: str) -> bool:
        """Tell whether a dead letter matches."""
        if self.reason is not None and self.reason.lower() not in (dead.header("x-reason") or "").lower():
            return False
        if self.topic is not None and (dead.header("x-topic") or "") not in (self.topic, prefix + self.topic):
            return False
        return self.redriven is None or self.redriven == (dead.redriven_ms is not None)


class Redriven(NamedTuple):
    """Result of a redrive."""

    sent: list[str]
    skipped: dict[str, str]
    """Id → why it was skipped."""


class DeadLetterQueue:
    """The dead letters of one cluster; every method raises Unavailable when it does not answer."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._topic = settings.topic(topics.DEAD_LETTERS)
        self._prefix = settings.kafka.topic_prefix

    async def list_page(
        self, wanted: DeadLetterFilter, *, limit: int, below: dict[int, int] | None = None
    ) -> tuple[list[DeadLetter], dict[int, int] | None]:
        """Return dead letters, newest first, and the offsets below which the next page starts; None at the end."""
        async with self._cluster.reading([self._topic]) as lookup:
            bounds = await lookup.bounds([TopicPartition(self._topic, number) for number in PARTITIONS])
            found: list[DeadLetter] = []
            reached: dict[int, int] = {}
            begins = {tp.partition: begin for tp, (begin, _) in bounds.items()}
            for tp, (begin, end) in bounds.items():
                upto = min(end, (below or {}).get(tp.partition, end))
                some, reached[tp.partition] = await self._newest(lookup, tp, begin, upto, end, wanted, limit)
                found += some
        found.sort(key=lambda one: (-one.found.timestamp, one.found.partition, -one.found.offset))
        shown, rest = found[:limit], found[limit:]
        for dead in rest:  # these belong to the next page, as do all older records of their partitions
            reached[dead.found.partition] = max(reached[dead.found.partition], dead.found.offset + 1)
        more = any(reached[number] > begins[number] for number in PARTITIONS)
        return shown, reached if more else None

    async def get(self, record_id: str) -> DeadLetter:
        """Return one dead letter; raises NotFound."""
        async with self._cluster.reading([self._topic]) as lookup:
            found = await self._read(lookup, record_id)
            tp = _tp(self._topic, found.partition)
            [(_, end)] = (await lookup.bounds([tp])).values()
            marks = await self._marks(lookup, tp, found.offset + 1, end)
        return DeadLetter(found, marks.get(record_id))

    async def _read(self, lookup: LogReader, record_id: str) -> LogRecord:
        number, _, offset = record_id.partition("-")
        unknown = NotFound(f"there is no dead letter {record_id[:40]}")
        if not (_is_number(number, 4) and _is_number(offset, 18) and int(number) in PARTITIONS):
            raise unknown
        found = await lookup.read(_tp(self._topic, int(number)), int(offset))
        if found is None or find(found.headers, REDRIVEN_HEADER) is not None:
            raise unknown
        return found

    async def select(self, wanted: DeadLetterFilter, *, limit: int) -> list[str]:
        """Return the ids of matching dead letters, the oldest of each partition first."""
        chosen: list[str] = []
        async with self._cluster.reading([self._topic]) as lookup:
            for tp, (begin, end) in (await lookup.bounds([_tp(self._topic, p) for p in PARTITIONS])).items():
                marks = await self._marks(lookup, tp, begin, end)
                async for record in lookup.read_range(tp, begin, end):
                    if len(chosen) == limit:
                        return chosen
                    if find(record.headers, REDRIVEN_HEADER) is None:
                        dead = DeadLetter(record._replace(value=None))
                        dead = dead._replace(redriven_ms=marks.get(dead.id))
                        if wanted.match(dead, self._prefix):
                            chosen.append(dead.id)
        return chosen

    async def redrive(self, producer: Producer, ids: list[str], *, now_ms: Callable[[], int]) -> Redriven:
        """Write the original records back to their topics."""
        done = Redriven([], {})
        async with self._cluster.reading([self._topic]) as lookup:
            for record_id in ids:
                try:
                    dead = DeadLetter(await self._read(lookup, record_id))
                except NotFound as error:
                    done.skipped[record_id] = error.message
                    continue
                if (why := await self._send_back(producer, dead)) is not None:
                    done.skipped[record_id] = why
                    continue
                mark = Record(record_id.encode(), None, [(REDRIVEN_HEADER, record_id.encode())], now_ms())
                await producer.send(self._topic, dead.found.partition, mark)
                done.sent.append(record_id)
        return done

    async def delete_before(self, offsets: dict[int, int]) -> int:
        """Delete the records before these offsets permanently; returns their number, marks included."""
        async with self._cluster.reading([self._topic]) as lookup:
            bounds = await lookup.bounds([_tp(self._topic, number) for number in offsets])
        upto = {tp: min(end, offsets[tp.partition]) for tp, (_, end) in bounds.items()}
        upto = {tp: offset for tp, offset in upto.items() if offset > bounds[tp][0]}
        if not upto:
            return 0
        left = await self._cluster.delete_before(upto)
        return sum(first - bounds[tp][0] for tp, first in left.items())

    async def offsets_at(self, at_ms: int | None) -> dict[int, int]:
        """Return the first offsets at or after a time; without a time the ends."""
        async with self._cluster.reading([self._topic]) as lookup:
            bounds = await lookup.bounds([_tp(self._topic, number) for number in PARTITIONS])
            found = {}
            for tp, (_, end) in bounds.items():
                first = end if at_ms is None else await lookup.offset_at(tp, at_ms)
                found[tp.partition] = end if first is None else first
        return found

    async def _send_back(self, producer: Producer, dead: DeadLetter) -> str | None:
        """Redrive one; returns why it was skipped."""
        topic, number = dead.header("x-topic") or "", dead.header("x-partition") or ""
        if not (_is_number(number, 6) and int(number) < await self._wide(topic)):
            return f"it came from {topic or 'nowhere'}, which no longer exists"
        if (last := dead.header("x-unread-to")) is not None:
            return f"it could not be read; it is in {topic}/{number} from offset {dead.header('x-offset')} to {last}"
        key, value = dead.found.key, dead.found.value
        if dead.header("x-left-behind-bytes") is not None:
            value = await self._left_behind(topic, int(number), dead)
            if value is None:
                return "its value was too large to be retained here, and its original record has expired"
        if key is None and value is None:
            return "it has neither a key nor a value"
        original = [(name, content or b"") for name, content in dead.found.headers if name not in ADDED_HEADERS]
        if has_internal_headers(original) and find(original, SIGNATURE_HEADER) is None:
            original.append(
                (SIGNATURE_HEADER, b"")
            )  # the author of a dead letter is unknown, so it must not be signed as ours
        await producer.send(topic, int(number), Record(key, value, original))
        return None

    async def _wide(self, topic: str) -> int:
        """Return the number of partitions of one of our topics; 0 if it does not exist."""
        return (await self._cluster.topics([topic])).get(topic, 0) if topic.startswith(self._prefix) else 0

    async def _left_behind(self, topic: str, number: int, dead: DeadLetter) -> bytes | None:
        offset = dead.header("x-offset") or ""
        if not _is_number(offset, 18):
            return None
        async with self._cluster.reading([topic]) as lookup:
            found = await lookup.read(_tp(topic, number), int(offset))
        return None if found is None else found.value

    async def _newest(
        self,
        lookup: LogReader,
        tp: TopicPartition,
        begin: int,
        upto: int,
        end: int,
        wanted: DeadLetterFilter,
        limit: int,
    ) -> tuple[list[DeadLetter], int]:
        """Read backwards in windows; returns the newest first, and the lowest offset that was read."""
        marks = await self._marks(lookup, tp, upto, end) if upto < end else {}
        found: list[DeadLetter] = []
        at = upto
        while at > begin and len(found) < limit and upto - at < SCAN_LIMIT:
            low = max(begin, at - FETCH_WINDOW)
            records = [record async for record in lookup.read_range(tp, low, at)]
            marks |= _marks(records)
            found_here = [DeadLetter(one) for one in reversed(records) if find(one.headers, REDRIVEN_HEADER) is None]
            found_here = [one._replace(redriven_ms=marks.get(one.id)) for one in found_here]
            matching = [one for one in found_here if wanted.match(one, self._prefix)]
            found += matching[: limit - len(found)]
            at = found[-1].found.offset if len(found) == limit else low
        return found, at

    async def _marks(self, lookup: LogReader, tp: TopicPartition, begin: int, end: int) -> dict[str, int]:
        return _marks([record async for record in _headed(lookup.read_range(tp, begin, end))])


async def _headed(records: AsyncIterator[LogRecord]) -> AsyncIterator[LogRecord]:
    """Yield only marks, so that not all records are in memory at once."""
    async for record in records:
        if find(record.headers, REDRIVEN_HEADER) is not None:
            yield record


def _marks(records: list[LogRecord]) -> dict[str, int]:
    """Return the ids that were redriven, with the time."""
    marked = ((find(record.headers, REDRIVEN_HEADER), record.timestamp) for record in records)
    return {name.decode(errors="replace"): at_ms for name, at_ms in marked if name is not None}


def _is_number(text: str, digits: int) -> bool:
    # isdecimal and not isdigit: isdigit accepts superscripts, which int() rejects.
    return text.isascii() and text.isdecimal() and len(text) <= digits


def _tp(topic: str, partition: int) -> TopicPartition:
    return TopicPartition(topic, partition)
