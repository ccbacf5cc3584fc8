"""Run one work item: call an upstream, keep the answer, say how it ended."""

from __future__ import annotations

import asyncio

from core.clock import Clock
from core.kafka.producer import Producer
from core.observability.tracing import tracer
from core.settings.models import Settings
from dispatcher import metrics
from dispatcher.inference import tracing
from dispatcher.inference.attempt import Attempt
from dispatcher.inference.bodies import BodyStore
from dispatcher.inference.chunk_writer import ChunkWriter
from dispatcher.inference.outcome import Failure
from dispatcher.inference.stream_relay import Relay
from dispatcher.inference.upstream import CallError
from dispatcher.inference.upstream_pool import UpstreamPool
from dispatcher.inference.work_item import WorkItem
from schemas.broken_lines import outcome_of
from schemas.media_types import EVENT_STREAM
from schemas.records import Outcome


class AttemptWorker:
    """Turn items into outcomes."""

    def __init__(
        self, settings: Settings, *, name: str, pool: UpstreamPool, chunks: Producer, bodies: BodyStore, clock: Clock
    ) -> None:
        self._settings = settings
        self._name = name
        self._pool = pool
        self._chunks = chunks
        self._bodies = bodies
        self._clock = clock

    async def run(self, item: WorkItem) -> Outcome:
        """Call until there is an outcome or the task's deadline has passed; a cancel closes the connection."""
        with tracer().span("process", "consumer", parent=item.traceparent) as span:
            item.traceparent = span.traceparent
            tracing.begun(span, self._settings, item.work)
            outcome = await self._run(item)
            tracing.ended(span, outcome)
            metrics.answered(item.work, outcome)
            return outcome

    async def _run(self, item: WorkItem) -> Outcome:
        broken = outcome_of(item.work["content_type"], item.work["data"], started_ms=self._clock())
        if broken is not None:
            return broken
        left_s = (item.work["deadline_ms"] - self._clock()) / 1000
        if item.work["mode"] == "streaming":
            return await self._streamed(item, left_s)
        return await _bounded(self._attempt(item, None), left_s)

    async def _streamed(self, item: WorkItem, left_s: float) -> Outcome:
        writer = ChunkWriter(
            self._settings, self._chunks, item.work, worker=self._name, home=item.home, clock=self._clock
        )
        spool = self._bodies.spool(item.work, media_type=EVENT_STREAM)
        relay = Relay(writer, spool, limit_bytes=self._settings.dispatcher.max_answer_bytes)
        attempt = self._attempt(item, relay)
        item.delivered = relay.begun
        item.deltas = lambda: writer.frames
        item.interrupted = lambda: attempt.failed(Failure.STOPPED)
        try:
            async with writer:
                outcome = await _bounded(attempt, left_s)
            return await relay.with_text(outcome)
        finally:
            relay.drop()

    def _attempt(self, item: WorkItem, relay: Relay | None) -> Attempt:
        limit_bytes = self._settings.dispatcher.max_answer_bytes
        return Attempt(
            item, pool=self._pool, relay=relay, bodies=self._bodies, limit_bytes=limit_bytes, clock=self._clock
        )


async def _bounded(attempt: Attempt, left_s: float) -> Outcome:
    """Call within the time that a task has left."""
    if left_s <= 0:
        return attempt.failed(Failure.TIMEOUT)
    try:
        async with asyncio.timeout(left_s):
            return await attempt.call()
    except TimeoutError:
        return attempt.failed(Failure.TIMEOUT)
    except CallError as error:
        return attempt.failed(error.failure, error.detail, error.report)
