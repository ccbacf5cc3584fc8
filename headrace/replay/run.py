"""Run a replay: read a slice, write the replayed tasks, save the position; partitions are read in turn."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.errors import RequestError, Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer, Record
from core.queues import QueueDirectory
from core.settings.models import Settings
from core.storage.blobs import open_blobs
from headrace.replay import state as states
from headrace.replay.bodies import ReplayBodies, Unusable
from headrace.replay.choice import Choice
from headrace.replay.copy import replayed_task
from headrace.replay.read import SLICE, OffsetRange, Slice, open_queues, slices, task_spans, with_retries
from headrace.replay.rejected import refused_of
from headrace.replay.selection import Selection, TaskSelector, Used, usage_of, widths_of
from headrace.replay.state import State, Target
from ingress.submission.serial_slots import lease_slot
from schemas import topics
from schemas.ids import REPLAY_STEP_S
from schemas.records import Task
from streams.intake.decode import HEADROOM_BYTES

NAME = "headrace-replay"
RETRY_TIMEOUT_S = 60
"""Maximum outage of the broker, seconds; then the run ends and can be resumed with the same command."""
STEPS_PER_S = 4
SAVE_S = 1.0


class ReplayOrder(NamedTuple):
    """Parameters of a new replay."""

    name: str
    choice: Choice
    target: Target


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[LogReader]:
    """Open a reader of all topics that replays need; raises Unavailable."""
    lookup = LogReader(settings, name=NAME)
    names = [
        topics.USAGE,
        topics.DEAD_LETTERS,
        topics.BATCHES,
        *(kind(level) for kind in (topics.tasks, topics.results) for level in (0, 1)),
    ]
    try:
        await lookup.open([settings.topic(name) for name in names])
        yield lookup
    finally:
        await lookup.close()


async def run(
    settings: Settings, path: Path, order: ReplayOrder, *, rate: float | None, on_step: Callable[[int, int, int], None]
) -> State:
    """Run or resume a replay; raises Unavailable and ConfigError.

    Args:
        rate: maximum tasks per second.
        on_step: called with records read, their total, and tasks written.
    """
    with states.exclusive_lock(path):
        async with AsyncExitStack() as stack:
            lookup = await stack.enter_async_context(opened(settings))
            producer = Producer(settings, name=NAME)
            await producer.start()
            stack.push_async_callback(producer.stop)
            queues = await stack.enter_async_context(open_queues(settings))
            replay = ReplayRun(settings, lookup=lookup, producer=producer, queues=queues, path=path, rate=rate)
            state = states.load(path)
            if state is None:
                state = await replay.begin(order)
            return await replay.run(state, on_step)


class ReplayRun:
    """One run of a replay."""

    def __init__(
        self,
        settings: Settings,
        *,
        lookup: LogReader,
        producer: Producer,
        queues: QueueDirectory,
        path: Path,
        rate: float | None,
    ) -> None:
        self._settings = settings
        self._lookup = lookup
        self._producer = producer
        self._queues = queues
        self._path = path
        self._bodies = ReplayBodies(settings, open_blobs(settings))
        self._step = SLICE if rate is None else max(1, min(SLICE, int(rate / STEPS_PER_S)))
        self._pace = RateLimiter(rate)
        self._saved_at = 0.0

    async def begin(self, order: ReplayOrder) -> State:
        """Store the parameters and offset ranges before the first task is written."""
        now_ms = epoch_ms()
        if order.target.queue_to is not None:
            await self._shadow(order.target.queue_to, workers=order.target.workers)
        # Leased like the serials of an ingress: no two replays of a thousand begin at the same second.
        slot = await lease_slot(self._settings, self._producer)
        state = State(
            name=order.name,
            created_ms=now_ms,
            start_s=(now_ms // 1000 // REPLAY_STEP_S - 1) * REPLAY_STEP_S + slot,
            choice=order.choice,
            target=order.target,
            spans=await task_spans(self._settings, self._lookup, order.choice),
            widths=widths_of(self._queues),
        )
        states.save(self._path, state)
        return state

    async def _shadow(self, name: str, *, workers: bool) -> None:
        queue = await self._queues.register(self._producer, name, served_by="workers" if workers else "dispatcher")
        if workers and queue["served_by"] != "workers":
            await self._queues.convert_to_pull_queue(self._producer, queue)

    async def run(self, state: State, on_step: Callable[[int, int, int], None]) -> State:
        """Submit the remaining tasks, and save the position after each step."""
        if state.finished_ms is not None:
            return state
        used: Mapping[str, Used] | None = None
        if state.choice.endings:
            used = await usage_of(self._settings, self._lookup, state.choice, tokens=False, on_read=_ignore)
        refused = await refused_of(self._settings, self._lookup, state.choice, on_read=_ignore)
        picker = TaskSelector(self._settings, state.choice, used, state.widths, refused)
        total = sum(span.end - span.begin for span in state.spans)
        async for span, piece in self._interleaved(state):
            picks = [*picker.select(span.level, piece.records)]
            for group, following in _steps(picks, self._step, piece.following):
                await self._write(state, group)
                state.reached(span, following)
                self._save(state, at_once=bool(group))
            done = sum(state.position(one) - one.begin for one in state.spans)
            on_step(done, total, state.written)
        state.finished_ms = epoch_ms()
        states.save(self._path, state)
        return state

    async def _interleaved(self, state: State) -> AsyncIterator[tuple[OffsetRange, Slice]]:
        """Read slices of the partitions in turn, so that the load is spread over the schedulers."""
        readers: dict[OffsetRange, AsyncIterator[Slice]] = {}
        for span in state.spans:
            tp = TopicPartition(self._settings.topic(topics.tasks(span.level)), span.partition)
            bounds = await with_retries(lambda tp=tp: self._lookup.bounds([tp]))  # type: ignore[misc]  # bound at once
            position = state.position(span)
            if (gone := min(bounds[tp][0], span.end) - position) > 0:
                state.expired(gone)
                position += gone
            readers[span] = slices(self._lookup, tp, position, span.end)
        while readers:
            for span, reader in [*readers.items()]:
                piece = await anext(reader, None)
                if piece is None:
                    del readers[span]
                else:
                    yield span, piece

    async def _write(self, state: State, picks: Sequence[Selection]) -> None:
        """Wait until all of these are written, or counted as skipped."""
        records: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for pick in picks:
            now_ms = epoch_ms()
            copy = replayed_task(pick, state, partitions=self._settings.kafka.partitions, now_ms=now_ms)
            try:
                await self._ensure_queue(copy.task)
                record = (await self._bodies.fill(copy, pick, model_to=state.target.model_to)).record(now_ms=now_ms)
                if len(record.value or b"") > self._settings.kafka.max_message_bytes - HEADROOM_BYTES:
                    raise Unusable("record_too_large")
            except Unusable as problem:
                state.problem(problem.reason, pick.task_id)
                continue
            records[self._settings.topic(topics.tasks(copy.id.level)), copy.id.partition].append(record)
        if records:
            await self._pace.wait(sum(map(len, records.values())))
            await self._write_with_retries(records)
            state.written += sum(map(len, records.values()))

    async def _write_with_retries(self, records: Mapping[tuple[str, int], Sequence[Record]]) -> None:
        """Write records, with retries: the scheduler drops duplicates by their id."""
        give_up = time.monotonic() + RETRY_TIMEOUT_S
        while True:
            try:
                await self._producer.send_batch(records)
            except Unavailable:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(1)
            else:
                return

    async def _ensure_queue(self, task: Task) -> None:
        """Register the queue of a task if it does not exist."""
        if self._queues.get(task["queue"]) is None:
            try:
                await self._queues.register(
                    self._producer, task["queue"], endpoint=task["endpoint"], owner=task["owner"]
                )
            except RequestError:
                raise Unusable("queue_refused") from None

    def _save(self, state: State, *, at_once: bool) -> None:
        if at_once or time.monotonic() - self._saved_at > SAVE_S:
            states.save(self._path, state)
            self._saved_at = time.monotonic()


class RateLimiter:
    """Limits the average rate of a run, without bursts after a pause."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0

    async def wait(self, count: int) -> None:
        """Wait until so many may be written."""
        if self._rate is None:
            return
        now = time.monotonic()
        begin = max(self._due, now)
        self._due = begin + count / self._rate
        await asyncio.sleep(begin - now)


def _steps(picks: Sequence[Selection], size: int, following: int) -> Iterator[tuple[Sequence[Selection], int]]:
    """Split the selected tasks of a slice into steps, each with the offset that is complete at its end."""
    for begin in range(0, max(len(picks), 1), size):
        group = picks[begin : begin + size]
        last = begin + size >= len(picks)
        yield group, following if last else group[-1].offset + 1


def _ignore(_: int) -> None:
    """Default progress callback: does nothing."""
