"""From records of tasks.LEVEL to chosen tasks, and how each of them ended, from the usage topic."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from aiokafka import TopicPartition

from core.kafka.log_reader import LogReader, LogRecord
from core.queues import QueueDirectory
from core.settings.models import Settings
from headrace.replay.choice import Choice, Matcher
from headrace.replay.read import offset_range, slices, start_offsets
from headrace.replay.rejected import RejectedRecords
from schemas import topics
from schemas.codec import USAGE, SchemaError
from schemas.framing import FramingError
from schemas.headers import TYPE, find
from schemas.ids import SERIALS
from schemas.json_text import read_json
from schemas.partitioning import direct_partition
from schemas.records import Task
from streams.intake.decode import InvalidRecord, Submission, read_task
from streams.intake.gateway import trust_policy_from

ENDED = TYPE + b"usage."
NOTHING = RejectedRecords()


class Used(NamedTuple):
    """How a task ended, and what it used."""

    ending: str
    prompt: int
    completion: int


class Selection(NamedTuple):
    """A chosen task with the place of its record."""

    level: int
    partition: int
    offset: int
    task_id: str
    task: Task
    model: str | None
    used: Used | None


class TaskSelector:
    """Choose tasks and count what was passed over.

    Args:
        used: how tasks have ended; None when nobody asks.
        widths: of the queues whose tasks live in some of the partitions only.
        refused: what the scheduler took no task from.
    """

    def __init__(
        self,
        settings: Settings,
        choice: Choice,
        used: Mapping[str, Used] | None,
        widths: Mapping[str, int],
        refused: RejectedRecords = NOTHING,
    ) -> None:
        self._settings = settings
        self._widths = widths
        # What was written without a door of ours is held to the same rules again: a dead letter is no task.
        self._trust = replace(trust_policy_from(settings), now_ms=None)
        self._matcher = Matcher(choice)
        self._used = used
        self._refused = refused
        self._lines: dict[str, bytearray] = defaultdict(bytearray)
        self.read = 0
        self.chosen = 0
        self.passed_over: Counter[str] = Counter()

    def select(self, level: int, records: Sequence[LogRecord]) -> Iterator[Selection]:
        """Yield the chosen tasks among records of one partition."""
        matcher, limit = self._matcher, self._settings.kafka.max_message_bytes
        for record in records:
            self.read += 1
            if not matcher.in_time(record.timestamp) or not matcher.by_headers(record.headers):
                continue
            if (level, record.partition, record.offset) in self._refused.places:
                self.passed_over["refused"] += 1
                continue
            message: Any = _Message(record)
            found = read_task(message, level=level, max_bytes=limit, trust=self._trust)
            if isinstance(found, InvalidRecord):
                self.passed_over["unreadable"] += 1
                continue
            if found.direct and self._was_forwarded(found, record):
                continue
            if found.task["batch_id"] is not None and self._already_failed(
                found.task["batch_id"], found.task["batch_line"]
            ):
                self.passed_over["lines"] += 1
                continue
            model = model_of(found.task)
            if not matcher.by_task(found.task_id, found.task, model=model):
                continue
            used = self._used.get(found.task_id) if self._used is not None else None
            if self._used is not None and not matcher.by_ending(used.ending if used else "none"):
                continue
            self.chosen += 1
            yield Selection(level, record.partition, record.offset, found.task_id, found.task, model, used)

    def _already_failed(self, batch_id: str, line: int) -> bool:
        """Tell whether a line was fed too late, or was fed before: after each change of a feeder some are."""
        if not 0 <= line < self._refused.submitted_lines.get(batch_id, SERIALS):
            return True
        seen, (at, bit) = self._lines[batch_id], divmod(line, 8)
        seen.extend(bytes(max(0, at + 1 - len(seen))))
        again = bool(seen[at] >> bit & 1)
        seen[at] |= 1 << bit
        return again

    def _was_forwarded(self, one: Submission, record: LogRecord) -> bool:
        """Tell whether the scheduler wrote this direct record again to another partition; then only the copy counts."""
        owner = direct_partition(
            one.task,
            partition=record.partition,
            key=record.key,
            headers=record.headers,
            width=self._widths.get(one.task["queue"], 0),
            partitions=self._settings.kafka.partitions,
        )
        return owner != record.partition


class _Message:
    """A record in the form in which the scheduler gets it from Faust: its time in seconds."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "value")

    def __init__(self, record: LogRecord) -> None:
        self.key, self.value, self.headers = record.key, record.value, record.headers
        self.topic, self.partition, self.offset = record.topic, record.partition, record.offset
        self.timestamp = record.timestamp / 1000


def widths_of(queues: QueueDirectory) -> dict[str, int]:
    """Return the widths of the queues that have one."""
    return {queue["name"]: queue["width"] for queue in queues.all() if queue["width"]}


def model_of(task: Task) -> str | None:
    """Return the model that a task asks for, by its body when the record does not say."""
    if task["model"] is not None or not task["data"]:
        return task["model"]
    try:
        document = read_json(task["data"])
    except orjson.JSONDecodeError:
        return None
    model = document.get("model") if isinstance(document, dict) else None
    return model if isinstance(model, str) else None


async def usage_of(
    settings: Settings, lookup: LogReader, choice: Choice, *, tokens: bool, on_read: Callable[[int], None]
) -> dict[str, Used]:
    """Return how the tasks that may be meant have ended; `tokens` False leaves their token counts undecoded.

    The usage topic is kept for longer than the tasks, so what it does not name has not ended.
    """
    found: dict[str, Used] = {}
    matcher, wanted = Matcher(choice), frozenset(choice.ids)
    topic = settings.topic(topics.USAGE)
    since: dict[int, int | None] = {}
    for (_, partition), from_ms in start_offsets(choice, partitions=settings.kafka.partitions).items():
        since[partition] = min(since.get(partition, from_ms) or 0, from_ms or 0)
    for partition, from_ms in since.items():
        tp = TopicPartition(topic, partition)
        if (span := await offset_range(lookup, tp, from_ms=from_ms)) is None:
            continue
        async for piece in slices(lookup, tp, *span):
            on_read(len(piece.records))
            for record in piece.records:
                if record.key is None or record.value is None or not matcher.by_headers(record.headers):
                    continue
                if wanted and record.key.decode(errors="replace") not in wanted:
                    continue
                one = _used(record, tokens=tokens)
                if one is not None:
                    found[record.key.decode(errors="replace")] = one
    return found


def _used(record: LogRecord, *, tokens: bool) -> Used | None:
    kind = find(record.headers, "ce_type") or b""
    if not tokens and kind.startswith(ENDED):
        return Used(kind[len(ENDED) :].decode(errors="replace"), 0, 0)
    try:
        usage = USAGE.decode(record.value or b"")
    except (FramingError, SchemaError):
        return None  # of another program: the task counts as one that has not ended
    return Used(usage["state"], usage["prompt_tokens"], usage["completion_tokens"])
