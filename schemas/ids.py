"""Task ids: TASK-{queueNo}-{level}-{mode}-{yyMMddHHmmss}-{partition:04d}-{serial6}, and their reversible renderings.

All renderings contain the same six fields in 102 bits: `task_`, `req_` and `batch_req_` with 32 hex digits, and a UUID
of version 8. A batch has such an id, too, rendered as `batch_` with the digits; its partition is that of its lines.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

EPOCH_S = 946_684_800  # 2000-01-01, where the two-digit years of the TASK form begin
MODES = "BSCPKR"
MODE_CODES = {"blocking": "B", "streaming": "S", "callback": "C", "batch": "P"}
SERIALS = 1_000_000

# ASCII digits without leading zeros: each form has one spelling, because logs and keys are searched by text.
_TASK = re.compile(r"TASK-(0|[1-9][0-9]{0,9})-([01])-([BSCPKR])-([0-9]{12})-([0-9]{4})-([0-9]{6})")
_HEX = re.compile(r"(?:task_|req_|batch_req_)([0-9a-f]{32})")
_BATCH = re.compile(r"batch_([0-9a-f]{32})")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-8[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}")


class IdError(ValueError):
    """The text is not a task id in any of the known forms."""


@lru_cache(maxsize=4096)
def _moment(time_s: int) -> str:
    """Render a second; cached, because it costs as much as the rest of an id."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%y%m%d%H%M%S")


@lru_cache(maxsize=4096)
def _second(moment: str) -> int:
    try:
        time = datetime.strptime(moment, "%y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise IdError(f"{moment} is not a yyMMddHHmmss time") from error
    if time.year < 2000:  # strptime reads 69 to 99 as 1969 to 1999
        time = time.replace(year=time.year + 100)
    return int(time.timestamp())


class TaskId(NamedTuple):
    """The fields of a task id; times are whole epoch seconds."""

    queue_number: int
    level: int
    mode: str
    time_s: int
    partition: int
    serial: int

    def __str__(self) -> str:
        moment = _moment(self.time_s)
        return f"TASK-{self.queue_number}-{self.level}-{self.mode}-{moment}-{self.partition:04d}-{self.serial:06d}"

    def packed(self) -> int:
        """Return the fields as one number of 102 bits."""
        number = self.queue_number
        number = number << 1 | self.level
        number = number << 3 | MODES.index(self.mode)
        number = number << 32 | (self.time_s - EPOCH_S)
        number = number << 14 | self.partition
        return number << 20 | self.serial

    def uuid(self) -> str:
        """Return the UUID that Dify clients expect: version 8, variant 10, the fields in the free bits."""
        packed = self.packed()
        value = (packed >> 74) << 80 | 0x8 << 76 | (packed >> 62 & 0xFFF) << 64 | 0b10 << 62 | packed & (1 << 62) - 1
        return str(UUID(int=value))

    def task(self) -> str:
        """Return the task_ form."""
        return f"task_{self.packed():032x}"

    def request(self) -> str:
        """Return the req_ form, an additional id of async tasks."""
        return f"req_{self.packed():032x}"

    def batch_request(self) -> str:
        """Return the batch_req_ form."""
        return f"batch_req_{self.packed():032x}"

    def batch(self) -> str:
        """Return the batch_ form, the id of a batch; `parse` rejects it."""
        return f"batch_{self.packed():032x}"


def parse(text: str) -> TaskId:
    """Parse any rendering; raises IdError for other texts."""
    if match := _TASK.fullmatch(text):
        return _from_task(*match.groups())
    if match := _HEX.fullmatch(text):
        return _unpack(int(match[1], 16))
    if _UUID.fullmatch(text):
        value = UUID(text).int
        return _unpack((value >> 80) << 74 | (value >> 64 & 0xFFF) << 62 | value & (1 << 62) - 1)
    raise IdError(f"{text[:80]!r} is not a task id")


def parse_batch(text: str) -> TaskId:
    """Parse the id of a batch; raises IdError for other texts, task ids included."""
    match = _BATCH.fullmatch(text)
    if match is None:
        raise IdError(f"{text[:80]!r} is not a batch id")
    identity = _unpack(int(match[1], 16))
    if (identity.mode, identity.level) != (MODE_CODES["batch"], 1):
        raise IdError(f"{text} is not the id of a batch")
    return identity


def partition_of(text: str) -> int:
    """Return the partition of a task or batch id; raises IdError for other texts."""
    return (parse_batch(text) if _BATCH.fullmatch(text) else parse(text)).partition


def canonical(text: str) -> str:
    """Return a task or batch id as it is spelled in keys; raises IdError for other texts."""
    return parse_batch(text).batch() if _BATCH.fullmatch(text) else str(parse(text))


def batch_line_id(batch: TaskId, line: int, *, queue_number: int, stamp_s: int) -> TaskId:
    """Return the id of a batch line, counted from 0: the same each time the line is submitted."""
    return TaskId(queue_number, 1, MODE_CODES["batch"], stamp_s, batch.partition, line)


def _from_task(number: str, level: str, mode: str, moment: str, partition: str, serial: str) -> TaskId:
    time_s = _second(moment)
    if int(number) >= 1 << 32:
        raise IdError(f"queue number {number} is above 32 bits")
    return TaskId(int(number), int(level), mode, time_s, int(partition), int(serial))


def _unpack(number: int) -> TaskId:
    serial, number = number & 0xFFFFF, number >> 20
    partition, number = number & 0x3FFF, number >> 14
    time_s, number = (number & 0xFFFFFFFF) + EPOCH_S, number >> 32
    mode, number = number & 0b111, number >> 3
    level, queue_number = number & 1, number >> 1
    if (
        mode >= len(MODES)
        or serial >= SERIALS
        or partition > 9999
        or queue_number >= 1 << 32
        or time_s >= EPOCH_S + 3_155_760_000
    ):
        raise IdError("the number is not a task id")
    return TaskId(queue_number, level, MODES[mode], time_s, partition, serial)


def from_record(*, queue_number: int, level: int, timestamp_ms: int, partition: int, offset: int) -> TaskId:
    """Return the id of a direct task without one: the same each time its record is read."""
    return TaskId(queue_number, level, "K", timestamp_ms // 1000, partition, offset % SERIALS)


REPLAY_STEP_S = 1_000
"""Each replay has its own second of a thousand; each further million of offsets uses a time 1,000 s earlier."""


def replay_id(
    *, queue_number: int, level: int, home: int, wide: int, start_s: int, partition: int, offset: int
) -> TaskId:
    """Return the id of the task that replays the one at this position: the same if the replay is resumed.

    It is unique: the mode R is used by replays only, `start_s` identifies the replay, and the position identifies the
    original task.

    Args:
        home: partition of the new task.
        wide: number of source partitions that may share `home`; 1 if every task stays in its partition.
        start_s: second of the replay, unique among replays modulo 1,000.
    """
    million, serial = divmod(offset, SERIALS)
    return TaskId(queue_number, level, "R", start_s - (million * wide + partition % wide) * REPLAY_STEP_S, home, serial)


class Serials:
    """Generates ids that are unique among processes.

    The six digits are a slot of 1,000 serials, leased by the process (its number modulo 1,000), and a counter per
    queue, level, mode, partition and second. After 1,000 ids in a second the next second is used.
    """

    SLOTS = 1000
    PER_SLOT = SERIALS // SLOTS

    def __init__(self, slot: int) -> None:
        self.slot = slot % self.SLOTS
        self._last: dict[tuple[int, int, str, int], tuple[int, int]] = {}

    def next(self, *, queue_number: int, level: int, mode: str, now_s: int, partition: int) -> TaskId:
        """Return the next id of this process."""
        key = (queue_number, level, mode, partition)
        second, count = self._last.get(key, (0, 0))
        if second < now_s:
            second, count = now_s, 0
        elif count >= self.PER_SLOT:
            second, count = second + 1, 0
        self._last[key] = (second, count + 1)
        return TaskId(queue_number, level, mode, second, partition, self.slot * self.PER_SLOT + count)
