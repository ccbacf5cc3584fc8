"""Recovery after an assignment: rebuilds the index from the table and finds what a crash left incomplete.

Results are durable before their state records and usage records, and all of them before the input offset is committed.
So any result in results.LEVEL since the first uncommitted input may lack the other two: it is found here and not
written again, and its usage record is written if it is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeVar

from aiokafka import TopicPartition

from core.kafka.admin import admin
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas import topics
from schemas.batches import Batch
from schemas.codec import BATCH, STATUS, SchemaError, state_of
from schemas.framing import FramingError
from schemas.headers import find
from schemas.records import Result, Status
from streams import outputs
from streams.faust.app import StateTable
from streams.recovery.buffer import ATTEMPT_KINDS, Attempt
from streams.state_index import StateIndex
from streams.state_machine.rows import StateKey
from streams.transaction import result_of

log = logging.getLogger(__name__)

Row = TypeVar("Row")

CLOCK_MARGIN_MS = 60_000
"""Maximum clock difference between the writers of inputs and the scheduler, which writes results."""
MAX_SCANNED_EVENTS = 50_000
"""Maximum number of events to scan for attempts; what a crash leaves out is one batch, which is far smaller."""
BATCH_ROWS_PER_STEP = 100
"""Batch records read before the event loop runs: each has two bitmaps and a list of segments."""
ROWS_PER_STEP = 2_000
"""Task records read before the event loop runs: about 10 ms."""


async def sweep(rows: StateTable, index: StateIndex, partitions: Iterable[int], *, now_ms: int, rebuild: bool) -> int:
    """Schedule what is due within the horizon for all tasks; `rebuild` also indexes the holders."""

    def decode(value: bytes) -> Status | None:
        if rebuild and state_of(value) == "expired":
            return None  # the next sweep is early enough
        return STATUS.decode(value)

    def note(partition: int, row: Status) -> None:
        if rebuild:
            index.update(partition, None, row, now_ms=now_ms)
        else:
            index.schedule(partition, row, now_ms=now_ms)

    return await _walk(rows, partitions, decode, note, slice_rows=ROWS_PER_STEP, log_unreadable=rebuild)


async def sweep_batches(
    batches: StateTable, index: StateIndex, partitions: Iterable[int], *, now_ms: int, rebuild: bool
) -> int:
    """Schedule what is due within the horizon for all batches; `rebuild` also indexes their line ids."""

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
    """Pass every state record to `note` and return their number; the event loop runs after each slice.

    A record that another program wrote to the changelog is skipped; without this every start of the scheduler would
    fail. It is logged once per start, although every sweep reads it.
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
                        "skipped unreadable state record %r: %s",
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
    """Return the offset at which each input partition is read: the committed one, or the first record.

    The first record also if the committed offset is beyond the end: then the topic was recreated.
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
    """Return all results since the first uncommitted input of each partition: key → offset and result."""
    results = settings.topic(topics.results(level))
    known: dict[StateKey, tuple[int, Result]] = {}
    for partition in sorted({tp.partition for tp in starts}):
        since = await _first_uncommitted_ms(lookup, {tp: at for tp, at in starts.items() if tp.partition == partition})
        if since is None:
            continue
        async for record in lookup.scan(TopicPartition(results, partition), from_ms=max(0, since - CLOCK_MARGIN_MS)):
            with suppress(FramingError, SchemaError):  # not a result record
                state_key, found = result_of(record)
                known.setdefault(state_key, found)
    log.info("found %d results since the first uncommitted input", len(known), extra={"event": "results_scanned"})
    return known


async def attempts_seen_before_crash(
    settings: Settings, level: int, starts: Mapping[TopicPartition, int], rows: StateTable, *, lookup: LogReader
) -> tuple[dict[int, int], set[Attempt]]:
    """Return the incomplete state after a crash.

    Returns:
        Partition → end of its tasks, for partitions with unprocessed tasks; and the attempts that workers have claimed
        or finished in unprocessed events and that the table does not have yet.
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


async def find_missing_usage(
    settings: Settings, results: Mapping[StateKey, tuple[int, Result]], *, lookup: LogReader
) -> dict[tuple[str, int], list[Record]]:
    """Return the missing usage records of these results by (topic, partition); raises Unavailable.

    A usage record has the timestamp of its result, so each partition is searched from its oldest result on.
    """
    topic = settings.topic(topics.USAGE)
    since: dict[int, int] = {}
    for (partition, _), (_, result) in results.items():
        since[partition] = min(since.get(partition, result["finished_ms"]), result["finished_ms"])
    existing: set[tuple[int, bytes | None]] = set()
    for partition, from_ms in since.items():
        async for record in lookup.scan(TopicPartition(topic, partition), from_ms=from_ms):
            existing.add((partition, record.key))
    missing: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for (partition, task_id), (_, result) in results.items():
        if (partition, task_id.encode()) not in existing:
            missing[topic, partition].append(outputs.usage_record(result))
    return missing


async def backfill_usage(
    settings: Settings, results: Mapping[StateKey, tuple[int, Result]], *, lookup: LogReader, producer: Producer
) -> int:
    """Write the missing usage records of these results; returns how many. Raises Unavailable."""
    missing = await find_missing_usage(settings, results, lookup=lookup)
    if missing:
        await producer.send_batch(missing)
    count = sum(map(len, missing.values()))
    if count:
        log.info("backfilled %d usage records after a crash", count, extra={"event": "usage_backfilled"})
    return count


def _attempt_of(record: LogRecord) -> tuple[str, int] | None:
    """Return the task and attempt of a worker event; None for any other event."""
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
            if record is not None:  # else there are only transaction markers
                times.append(record.timestamp)
    return min(times) if times else None
