"""After an assignment: rebuild the index from the table, and find results whose rows a crash has cut off.

Results are durable before their rows and both before the input's offset is committed. So whatever lies in results.LEVEL
since the first uncommitted input may still lack its row; it is looked up there and never written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeVar

from aiokafka import TopicPartition

from core.kafka.admin import admin
from core.kafka.log_reader import LogReader, LogRecord
from core.settings.models import Settings
from schemas import topics
from schemas.batches import Batch
from schemas.codec import BATCH, STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.headers import find
from schemas.records import Result, Status
from streams.faust.app import StateTable
from streams.recovery.buffer import ATTEMPT_KINDS, Attempt
from streams.state_index import StateIndex
from streams.transaction import StateKey, result_of

log = logging.getLogger(__name__)

Row = TypeVar("Row")

CLOCK_MARGIN_MS = 60_000
"""Inputs carry their writers' clocks, results ours: how far the two may differ."""
MAX_SCANNED_EVENTS = 50_000
"""Events looked through for what workers did of late; the seam of a crash is one batch, far below this."""
BATCH_ROWS_PER_STEP = 100
"""Rows of batches walked at once: each holds two bitmaps and the list of its parts."""
ROWS_PER_STEP = 2_000
"""Rows walked before the loop gets a turn: about 10 ms."""


async def sweep(rows: StateTable, index: StateIndex, partitions: Iterable[int], *, now_ms: int, rebuild: bool) -> int:
    """Walk all rows and schedule what is due within the horizon; with `rebuild` note the holders too."""

    def decode(value: bytes) -> Status | None:
        if rebuild and state_of(value) == "expired":
            return None  # the next ordinary sweep will do; nothing waits for it
        return STATUS.decode(value)

    def note(partition: int, row: Status) -> None:
        if rebuild:
            index.changed(partition, None, row, now_ms=now_ms)
        else:
            index.schedule(partition, row, now_ms=now_ms)

    return await _walk(rows, partitions, decode, note, slice_rows=ROWS_PER_STEP, log_unreadable=rebuild)


async def sweep_batches(
    batches: StateTable, index: StateIndex, partitions: Iterable[int], *, now_ms: int, rebuild: bool
) -> int:
    """Walk all batches and schedule what is due within the horizon; with `rebuild` note what their ids are made of."""

    def note(partition: int, batch: Batch) -> None:
        if rebuild:
            index.update_batch(partition, None, batch, now_ms=now_ms)
        else:
            index.schedule_batch(partition, batch, now_ms=now_ms)

    return await _walk(batches, partitions, BATCH.decode, note, slice_rows=BATCH_ROWS_PER_STEP, log_unreadable=rebuild)


async def _walk(
    rows: StateTable,
    partitions: Iterable[int],
    decode: Callable[[bytes], Row | None],
    note: Callable[[int, Row], None],
    *,
    slice_rows: int,
    log_unreadable: bool,
) -> int:
    """Note every row, giving the loop a turn after each slice; returns how many rows there are.

    A row that another program wrote to the changelog is left where it is: it schedules nothing, and without this every
    start of the scheduler would end at it. It is logged once for each start, although every sweep meets it.
    """
    count = 0
    for partition in partitions:
        for key, value in rows.scan(partition):
            count += 1
            if count % slice_rows == 0:
                await asyncio.sleep(0)
            try:
                row = decode(value)
            except (FramingError, SchemaError) as error:
                if log_unreadable:
                    log.warning(
                        "row %r cannot be read and is skipped: %s",
                        key,
                        error,
                        extra={"event": "table_row_unreadable", "partition": partition},
                    )
                continue
            if row is not None:
                note(partition, row)
    return count


async def start_offsets(
    settings: Settings, level: int, group: str, partitions: Iterable[int], *, lookup: LogReader
) -> dict[TopicPartition, int]:
    """Return where reading begins in each input partition: the committed offset, or the first record there is.

    Also where the committed offset lies behind the end: then the topic was made anew.
    """
    inputs = [settings.topic(topics.tasks(level)), settings.topic(topics.events(level))]
    async with admin(settings) as client:
        committed = {tp: found.offset for tp, found in (await client.list_consumer_group_offsets(group)).items()}
    bounds = await lookup.bounds([TopicPartition(topic, partition) for topic in inputs for partition in partitions])
    return {
        tp: at if first <= (at := committed.get(tp, first)) <= end else first for tp, (first, end) in bounds.items()
    }


async def results_without_state(
    settings: Settings, level: int, starts: Mapping[TopicPartition, int], *, lookup: LogReader
) -> dict[StateKey, tuple[int, Result]]:
    """Return every result since the first uncommitted input of each partition: home → offset and result."""
    results = settings.topic(topics.results(level))
    known: dict[StateKey, tuple[int, Result]] = {}
    for partition in sorted({tp.partition for tp in starts}):
        since = await _first_uncommitted_ms(lookup, {tp: at for tp, at in starts.items() if tp.partition == partition})
        if since is None:
            continue
        async for record in lookup.scan(TopicPartition(results, partition), from_ms=max(0, since - CLOCK_MARGIN_MS)):
            with suppress(FramingError, SchemaError):  # of nobody who answers for a row
                home, found = result_of(record)
                known.setdefault(home, found)
    log.info("found %d results since the first uncommitted input", len(known), extra={"event": "results_scanned"})
    return known


async def attempts_seen_before_crash(
    settings: Settings, level: int, starts: Mapping[TopicPartition, int], rows: StateTable, *, lookup: LogReader
) -> tuple[dict[int, int], set[Attempt]]:
    """Return what a crash may have left half done.

    Returns: partition → end of its tasks, where some are not folded yet; and the attempts that workers have claimed or
    finished in events that are not folded yet, as far as the table does not know of them.
    """
    tasks, events = settings.topic(topics.tasks(level)), settings.topic(topics.events(level))
    ends = {tp: end for tp, (_, end) in (await lookup.bounds([*starts])).items()}
    attempts: set[Attempt] = set()
    for tp, start in starts.items():
        if tp.topic != events:
            continue
        end = min(ends[tp], start + MAX_SCANNED_EVENTS)
        async for record in lookup.read_range(tp, start, end):
            if (found := _attempt_of(record)) is not None:
                key, attempt = found
                value = rows.get(tp.partition, key.encode())
                row = STATUS.decode(value) if value is not None else None
                if row is None or (row["state"] == "queued" and row["attempt"] == attempt):
                    attempts.add((tp.partition, key, attempt))
    return {tp.partition: ends[tp] for tp, at in starts.items() if tp.topic == tasks and at < ends[tp]}, attempts


def _attempt_of(record: LogRecord) -> tuple[str, int] | None:
    """Return the task and attempt of which a worker speaks; None for all else, whatever its headers say."""
    kind = (find(record.headers, "ce_type") or b"").decode(errors="replace").rpartition(".")[2]
    attempt = find(record.headers, "x-attempt")
    if kind not in ATTEMPT_KINDS or attempt is None or record.key is None:
        return None
    try:
        return record.key.decode(), int(attempt)
    except ValueError:
        return None


async def _first_uncommitted_ms(lookup: LogReader, starts: Mapping[TopicPartition, int]) -> int | None:
    times: list[int] = []
    for tp, (_, end) in (await lookup.bounds([*starts])).items():
        if starts[tp] < end:
            record = await lookup.first_record(tp, starts[tp], end)
            if record is not None:  # else only marks of transactions are there
                times.append(record.timestamp)
    return min(times) if times else None
