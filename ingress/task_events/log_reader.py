"""Read past chunk records: the beginning of a stream for new viewers, and evicted frames for slow ones.

One pass over a partition serves all tasks that need a part of it: after the loss of an ingress its clients reconnect to
another one all at once, and each needs the records of its own task among those of all others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from core.errors import Unavailable
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.topic_follower import TopicFollower
from ingress.task_events.transcript import PART_BYTES, ReplayPosition, Run
from schemas.codec import CHUNK, SchemaError
from schemas.framing import FramingError
from schemas.records import Chunk

log = logging.getLogger(__name__)

PASS_TIMEOUT_S = 15.0
"""Time-out of one pass; the next pass continues at the same offset, so a lost broker blocks none for long."""
RETRY_S = 0.5

OnChunk = Callable[[Chunk, int], object]


class ReplayRequest:
    """The records of one task from `begin` up to, but not including, `end`."""

    def __init__(self, key: bytes, begin: int, end: int, on_chunk: OnChunk) -> None:
        self.key = key
        self.begin = begin
        self.end = end
        self.on_chunk = on_chunk


class ChunkReplayer:
    """Reads ranges of the chunk topic, one pass at a time per partition."""

    def __init__(self, log_reader: LogReader) -> None:
        self._log_reader = log_reader
        self._asked: dict[TopicPartition, list[ReplayRequest]] = defaultdict(list)
        self._passing: dict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def read(self, tp: TopicPartition, request: ReplayRequest) -> None:
        """Return when every requested record has been passed to `on_chunk`, in order; retries until Kafka answers.

        The first caller reads for all; when it is cancelled another continues. `on_chunk` must not raise.
        """
        asked = self._asked[tp]
        asked.append(request)
        try:
            async with self._passing[tp]:
                while request.begin < request.end:
                    await self._pass(tp, _coalesce(request, asked))
        finally:
            asked.remove(request)

    async def _pass(self, tp: TopicPartition, requests: list[ReplayRequest]) -> None:
        """Read for some requests and advance the `begin` of each."""
        by_key: dict[bytes, list[ReplayRequest]] = defaultdict(list)
        for request in requests:
            by_key[request.key].append(request)
        at, end = min(request.begin for request in requests), max(request.end for request in requests)
        try:
            async with asyncio.timeout(PASS_TIMEOUT_S):
                async for record in self._log_reader.read_range(tp, at, end):
                    at = record.offset
                    for request in by_key.get(record.key or b"", ()):
                        if request.begin <= at < request.end:
                            request.begin = at + 1
                            _hand_over(request, tp, at, record.value)
            at = end
        except (TimeoutError, KafkaError, OSError, Unavailable) as error:
            reason = str(error) or type(error).__name__
            log.warning("%s/%d@%d: %s", tp.topic, tp.partition, at, reason, extra={"event": "chunk_replay_failed"})
            await asyncio.sleep(RETRY_S)
        finally:
            for request in requests:
                if request.begin <= at:
                    request.begin = min(at, request.end)


def _coalesce(request: ReplayRequest, asked: list[ReplayRequest]) -> list[ReplayRequest]:
    """Return the requests that one pass can serve without reading gaps between them."""
    chosen: list[ReplayRequest] = []
    end = -1
    for other in sorted((one for one in asked if one.begin < one.end), key=lambda one: one.begin):
        if other.begin > end:
            if request in chosen:
                break
            chosen = []
        chosen.append(other)
        end = max(end, other.end)
    return chosen


def _hand_over(request: ReplayRequest, tp: TopicPartition, offset: int, value: bytes | None) -> None:
    if value is None:
        return
    try:
        chunk = CHUNK.decode(value)
    except (FramingError, SchemaError) as error:
        log.warning(
            "%s/%d@%d cannot be read: %s",
            tp.topic,
            tp.partition,
            offset,
            error,
            extra={"event": "chunk_unreadable", "partition": tp.partition, "offset": offset},
        )
    else:
        request.on_chunk(chunk, offset)


class ChunkLog(NamedTuple):
    """Readers of the chunk topic: at given offsets, at its end, and shared passes over past records."""

    topic: str
    log_reader: LogReader
    tail: TopicFollower
    replayer: ChunkReplayer


async def read_page(
    records: AsyncIterator[LogRecord], *, key: bytes, run: Run, mark: ReplayPosition, frame: int
) -> list[bytes]:
    """Return the payloads from a frame on, of some records, up to the first gap.

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
