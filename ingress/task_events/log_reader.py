"""Frames of one run read again from the log, for a viewer that the transcript has left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.topic_follower import TopicFollower
from ingress.task_events.chunk_replay import ChunkReplayer
from ingress.task_events.position import Run
from ingress.task_events.transcript import PART_BYTES, ReplayPosition
from schemas.codec import CHUNK, SchemaError
from schemas.framing import FramingError
from schemas.records import Chunk


class ChunkLog(NamedTuple):
    """What reads the chunk topic: at given offsets, at its end, and from the past for several tasks at once."""

    topic: str
    log_reader: LogReader
    tail: TopicFollower
    replayer: ChunkReplayer


async def read_page(
    records: AsyncIterator[LogRecord], *, key: bytes, run: Run, mark: ReplayPosition, frame: int
) -> list[bytes]:
    """Return the payloads from a frame on, some records' worth, up to the first gap.

    Args:
        records: what the log holds from the mark on.
        mark: a record of the run that begins with this frame or an earlier one.
    """
    number, seq, size = mark.frame, mark.seq, 0
    payloads: list[bytes] = []
    async for record in records:
        chunk = _chunk_of(record) if record.key == key else None
        if chunk is None or Run(chunk["attempt"], chunk["worker"]) != run or chunk["seq"] < seq:
            continue
        if chunk["seq"] > seq:
            break
        wanted = chunk["frames"][max(frame - number, 0) :]
        number, seq = number + len(chunk["frames"]), seq + 1
        payloads += wanted
        size += sum(map(len, wanted))
        if size >= PART_BYTES:
            break
    return payloads


def _chunk_of(record: LogRecord) -> Chunk | None:
    try:
        return CHUNK.decode(record.value or b"")
    except (FramingError, SchemaError):
        return None
