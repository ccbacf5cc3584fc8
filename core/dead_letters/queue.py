"""The dead letters as operators see them: pages of them, one of them, and sending them back to where they came from.

A letter stays where it is until its retention ends. That it was sent back is told by a mark, a record without a value
in the letter's own partition; so nothing is sent back twice unless somebody asks for it.
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
from schemas.task_decoder import is_ours

REDRIVEN_HEADER = "x-redriven"
FETCH_WINDOW = 200
SCAN_LIMIT = 5_000
"""Letters of a partition that one page looks at: with a rare filter it may be empty and still have a next one."""
PARTITIONS = range(topics.DEAD_LETTER_PARTITIONS)


class DeadLetter(NamedTuple):
    """One dead letter."""

    found: LogRecord
    redriven_ms: int | None = None

    @property
    def id(self) -> str:
        """Return what names it: its partition and offset."""
        return f"{self.found.partition}-{self.found.offset}"

    def header(self, name: str) -> str | None:
        """Return a header as text."""
        value = find(self.found.headers, name)
        return None if value is None else value.decode(errors="replace")


class DeadLetterFilter(NamedTuple):
    """Which letters are meant; None means any."""

    reason: str | None = None
    """A part of the reason, in any case."""
    topic: str | None = None
    """The topic it came from, with or without the prefix."""
    redriven: bool | None = None

    def match(self, letter: DeadLetter, prefix: str) -> bool:
        """Tell whether a letter is meant."""
        if self.reason is not None and self.reason.lower() not in (letter.header("x-reason") or "").lower():
            return False
        if self.topic is not None and (letter.header("x-topic") or "") not in (self.topic, prefix + self.topic):
            return False
        return self.redriven is None or self.redriven == (letter.redriven_ms is not None)


class Redriven(NamedTuple):
    """What became of letters that were to be sent back."""

    sent: list[str]
    skipped: dict[str, str]
    """Letter → why it was not sent."""


class DeadLetterQueue:
    """The dead letters of one cluster; everything raises Unavailable when it does not answer."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._topic = settings.topic(topics.DEAD_LETTERS)
        self._prefix = settings.kafka.topic_prefix

    async def list_page(
        self, wanted: DeadLetterFilter, *, limit: int, below: dict[int, int] | None = None
    ) -> tuple[list[DeadLetter], dict[int, int] | None]:
        """Return letters, the newest first, and below which offsets the next page goes on; None at the end."""
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
        for letter in rest:  # those are the next page's, with all that is older in their partitions
            reached[letter.found.partition] = max(reached[letter.found.partition], letter.found.offset + 1)
        more = any(reached[number] > begins[number] for number in PARTITIONS)
        return shown, reached if more else None

    async def get(self, letter_id: str) -> DeadLetter:
        """Return one letter; raises NotFound."""
        async with self._cluster.reading([self._topic]) as lookup:
            found = await self._read(lookup, letter_id)
            tp = _tp(self._topic, found.partition)
            [(_, end)] = (await lookup.bounds([tp])).values()
            marks = await self._marks(lookup, tp, found.offset + 1, end)
        return DeadLetter(found, marks.get(letter_id))

    async def _read(self, lookup: LogReader, letter_id: str) -> LogRecord:
        number, _, offset = letter_id.partition("-")
        unknown = NotFound(f"there is no dead letter {letter_id[:40]}")
        if not (_is_number(number, 4) and _is_number(offset, 18) and int(number) in PARTITIONS):
            raise unknown
        found = await lookup.read(_tp(self._topic, int(number)), int(offset))
        if found is None or find(found.headers, REDRIVEN_HEADER) is not None:
            raise unknown
        return found

    async def select(self, wanted: DeadLetterFilter, *, limit: int) -> list[str]:
        """Return the ids of letters, the oldest of each partition first."""
        chosen: list[str] = []
        async with self._cluster.reading([self._topic]) as lookup:
            for tp, (begin, end) in (await lookup.bounds([_tp(self._topic, p) for p in PARTITIONS])).items():
                marks = await self._marks(lookup, tp, begin, end)
                async for record in lookup.read_range(tp, begin, end):
                    if len(chosen) == limit:
                        return chosen
                    if find(record.headers, REDRIVEN_HEADER) is None:
                        letter = DeadLetter(record._replace(value=None))
                        letter = letter._replace(redriven_ms=marks.get(letter.id))
                        if wanted.match(letter, self._prefix):
                            chosen.append(letter.id)
        return chosen

    async def redrive(self, producer: Producer, ids: list[str], *, now_ms: Callable[[], int]) -> Redriven:
        """Write the original records of letters back to where they came from."""
        done = Redriven([], {})
        async with self._cluster.reading([self._topic]) as lookup:
            for letter_id in ids:
                try:
                    letter = DeadLetter(await self._read(lookup, letter_id))
                except NotFound as error:
                    done.skipped[letter_id] = error.message
                    continue
                if (why := await self._send_back(producer, letter)) is not None:
                    done.skipped[letter_id] = why
                    continue
                mark = Record(letter_id.encode(), None, [(REDRIVEN_HEADER, letter_id.encode())], now_ms())
                await producer.send(self._topic, letter.found.partition, mark)
                done.sent.append(letter_id)
        return done

    async def delete_before(self, offsets: dict[int, int]) -> int:
        """Delete the letters before these offsets for good; returns how many there were, marks included."""
        async with self._cluster.reading([self._topic]) as lookup:
            bounds = await lookup.bounds([_tp(self._topic, number) for number in offsets])
        upto = {tp: min(end, offsets[tp.partition]) for tp, (_, end) in bounds.items()}
        upto = {tp: offset for tp, offset in upto.items() if offset > bounds[tp][0]}
        if not upto:
            return 0
        left = await self._cluster.delete_before(upto)
        return sum(first - bounds[tp][0] for tp, first in left.items())

    async def offsets_at(self, at_ms: int | None) -> dict[int, int]:
        """Return the offsets at which the letters of a time begin; without a time the ends."""
        async with self._cluster.reading([self._topic]) as lookup:
            bounds = await lookup.bounds([_tp(self._topic, number) for number in PARTITIONS])
            found = {}
            for tp, (_, end) in bounds.items():
                first = end if at_ms is None else await lookup.offset_at(tp, at_ms)
                found[tp.partition] = end if first is None else first
        return found

    async def _send_back(self, producer: Producer, letter: DeadLetter) -> str | None:
        """Send one back; returns why it was not."""
        topic, number = letter.header("x-topic") or "", letter.header("x-partition") or ""
        if not (_is_number(number, 6) and int(number) < await self._wide(topic)):
            return f"it came from {topic or 'nowhere'}, which is not there any more"
        if (last := letter.header("x-unread-to")) is not None:
            return (
                f"it could not be read; it lies in {topic}/{number} from offset {letter.header('x-offset')} to {last}"
            )
        key, value = letter.found.key, letter.found.value
        if letter.header("x-left-behind-bytes") is not None:
            value = await self._left_behind(topic, int(number), letter)
            if value is None:
                return "its value was too large to be kept here, and is gone from its own topic"
        if key is None and value is None:
            return "it has neither a key nor a value"
        kept = [(name, content or b"") for name, content in letter.found.headers if name not in ADDED_HEADERS]
        if is_ours(kept) and find(kept, SIGNATURE_HEADER) is None:
            kept.append(
                (SIGNATURE_HEADER, b"")
            )  # a letter proves nothing of who wrote it, and must not get our stamp on its way
        await producer.send(topic, int(number), Record(key, value, kept))
        return None

    async def _wide(self, topic: str) -> int:
        """Return how many partitions a topic of ours has, 0 when it is not there."""
        return (await self._cluster.topics([topic])).get(topic, 0) if topic.startswith(self._prefix) else 0

    async def _left_behind(self, topic: str, number: int, letter: DeadLetter) -> bytes | None:
        offset = letter.header("x-offset") or ""
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
        """Walk back window by window; returns the newest first, and the offset down to which all were looked at."""
        marks = await self._marks(lookup, tp, upto, end) if upto < end else {}
        found: list[DeadLetter] = []
        at = upto
        while at > begin and len(found) < limit and upto - at < SCAN_LIMIT:
            low = max(begin, at - FETCH_WINDOW)
            records = [record async for record in lookup.read_range(tp, low, at)]
            marks |= _marks(records)
            letters = [DeadLetter(one) for one in reversed(records) if find(one.headers, REDRIVEN_HEADER) is None]
            letters = [one._replace(redriven_ms=marks.get(one.id)) for one in letters]
            matching = [one for one in letters if wanted.match(one, self._prefix)]
            found += matching[: limit - len(found)]
            at = found[-1].found.offset if len(found) == limit else low
        return found, at

    async def _marks(self, lookup: LogReader, tp: TopicPartition, begin: int, end: int) -> dict[str, int]:
        return _marks([record async for record in _headed(lookup.read_range(tp, begin, end))])


async def _headed(records: AsyncIterator[LogRecord]) -> AsyncIterator[LogRecord]:
    """Keep only marks, so that not all letters are in memory at once."""
    async for record in records:
        if find(record.headers, REDRIVEN_HEADER) is not None:
            yield record


def _marks(records: list[LogRecord]) -> dict[str, int]:
    """Return which letters were sent back, and when."""
    marked = ((find(record.headers, REDRIVEN_HEADER), record.timestamp) for record in records)
    return {name.decode(errors="replace"): at_ms for name, at_ms in marked if name is not None}


def _is_number(text: str, digits: int) -> bool:
    # isdecimal and not isdigit: int() refuses the superscripts that isdigit takes for digits.
    return text.isascii() and text.isdecimal() and len(text) <= digits


def _tp(topic: str, partition: int) -> TopicPartition:
    return TopicPartition(topic, partition)
