"""Purge a queue: send a purge event to every partition, then watch the read model until all tasks have ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import Unavailable
from core.settings.models import Settings
from ingress.connected import Connected
from ingress.read_model.task_view import TaskView
from schemas import ids, topics
from schemas.codec import STATUS, SchemaError, state_of
from schemas.events import purge_event
from schemas.framing import FramingError
from schemas.purge import REASON, OffsetBounds
from schemas.records import Queue, Status

PAGE = 500
LOOK_S = 0.25
Ends = Mapping[tuple[int, int], int]
"""Level and partition → the task records before this offset are meant."""


class PurgeCounts(NamedTuple):
    """What the read model shows of a purge."""

    purged: int
    left: int


async def purge(
    settings: Settings, connected: Connected, queue: Queue, levels: Sequence[int], *, wait_s: float
) -> dict[str, object]:
    """Cancel every waiting task and return the counts; raises Unavailable when no event was written."""
    ends = await _ends(settings, connected, levels)
    view = connected.view
    before = await _count(view, queue, ends)
    await _ask(settings, connected, queue, ends)
    give_up = time.monotonic() + wait_s
    while True:
        began = time.monotonic()
        now = await _count(view, queue, ends)
        done = not now.left and await _all_processed(settings, connected, ends)
        if done or time.monotonic() >= give_up:
            break
        # A scan of a million rows takes seconds: other work needs its share of this process.
        await asyncio.sleep(max(LOOK_S, 4 * (time.monotonic() - began)))
    if done:
        now = await _count(view, queue, ends)
    return {"queue": queue["name"], "purged": max(0, now.purged - before.purged), "left": now.left, "done": done}


async def _ends(settings: Settings, connected: Connected, levels: Sequence[int]) -> Ends:
    partitions = range(settings.kafka.partitions)
    places = {
        TopicPartition(settings.topic(topics.tasks(level)), number): (level, number)
        for level in levels
        for number in partitions
    }
    bounds = await connected.log_reader.bounds(list(places))
    return {places[tp]: end for tp, (_, end) in bounds.items() if end}


async def _ask(settings: Settings, connected: Connected, queue: Queue, ends: Ends) -> None:
    now_ms, name = epoch_ms(), queue["name"]
    prefix = settings.kafka.topic_prefix
    sending = []
    for (level, number), end in ends.items():
        bounds = OffsetBounds(end)
        asked = purge_event(prefix, name, bounds, level=level, partition=number, at_ms=now_ms)
        sending.append(connected.producer.send(*asked))
    await asyncio.gather(*sending)


async def _all_processed(settings: Settings, connected: Connected, ends: Ends) -> bool:
    """Return whether the schedulers have processed every affected task."""
    pairs = {
        level: (settings.topic(f"scheduler.{topics.level_name(level)}"), settings.topic(topics.tasks(level)))
        for level in {level for level, _ in ends}
    }
    with suppress(Unavailable):
        lags = {(one.group, one.topic): one for one in await connected.cluster.lags(list(pairs.values()))}
        return all(
            (lag := lags.get(pairs[level])) is not None and lag.positions.get(number, 0) >= end
            for (level, number), end in ends.items()
        )
    return False


async def _count(view: TaskView, queue: Queue, ends: Ends) -> PurgeCounts:
    purged = left = 0
    for level in {level for level, _ in ends}:
        begin = f"TASK-{queue['number']}-{level}-".encode()
        bound = begin + b"\xff"
        while page := view.scan(begin, bound, limit=PAGE):
            for _, value in page:
                state = state_of(value)
                if state in ("queued", "cancelled") and (row := _row(value, queue, ends)) is not None:
                    left += state == "queued"
                    purged += state == "cancelled" and row["error_message"] == REASON
            begin = page[-1][0] + b"\x00"
            await asyncio.sleep(0)
    return PurgeCounts(purged, left)


def _row(value: bytes, queue: Queue, ends: Ends) -> Status | None:
    try:
        row = STATUS.decode(value)
    except (FramingError, SchemaError):
        return None
    end = ends.get((row["level"], ids.parse(row["id"]).partition), 0)
    return row if row["queue"] == queue["name"] and 0 <= row["source_offset"] < end else None
