"""The inference component: constructs its parts, starts them, and stops them in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from core.clock import Deadline, epoch_ms
from core.kafka.producer import Producer
from core.queues import QueueDirectory
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from dispatcher import metrics
from dispatcher.batches.index import BatchIndex
from dispatcher.commit_loop import CommitLoop
from dispatcher.event_outbox import EventOutbox
from dispatcher.inference.attempt import AttemptWorker
from dispatcher.inference.bodies import BodyStore
from dispatcher.inference.cancellations import Cancellations
from dispatcher.inference.concurrency import AdaptiveLimit, CallSlots, IntakeGate
from dispatcher.inference.heartbeat import Heartbeat
from dispatcher.inference.queue_consumers import QueueConsumers
from dispatcher.inference.runner import Runner
from dispatcher.inference.seen_attempts import AttemptEventReader, LevelIndex, SeenAttempts
from dispatcher.inference.upstream import Upstream
from dispatcher.inference.upstream_pool import UpstreamPool
from dispatcher.task_supervisor import TaskSupervisor
from schemas import topics

JOINED_POLL_S = 0.1
NO_UPSTREAM = "no upstream accepts calls"
NO_KAFKA = "event writes are failing"


class InferenceService:
    """Receives work, calls upstreams and reports outcomes."""

    name = "inference"

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        supervisor: TaskSupervisor,
        producer: Producer,
        blobs: BlobStore,
        batch_index: BatchIndex,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._batch_index = batch_index
        self._open = False
        self._serving = False
        self._joining: asyncio.Task[None] | None = None
        self._gate = IntakeGate()
        self._slots = CallSlots(share=settings.dispatcher.offline_share)
        self._adaptive_limit = AdaptiveLimit(self._slots)
        self._cancellations = Cancellations(settings, name=name)
        self._outbox = EventOutbox(producer, on_capacity=self._on_outbox_capacity)
        self._pool = UpstreamPool(
            [Upstream(settings, url) for url in settings.upstream.urls],
            concurrency=settings.dispatcher.concurrency,
            on_change=self._on_upstreams_changed,
        )
        self._chunks = Producer(settings, name=f"{name}-chunks", durable=False)
        self._attempt_events = AttemptEventReader(settings, name=name)
        seen_attempts = SeenAttempts(
            [LevelIndex(partial(self._attempt_events.read, level)) for level in range(len(topics.LEVELS))]
        )
        bodies = BodyStore(blobs, inline_bytes=settings.storage.inline_bytes)
        self._runner = Runner(
            settings,
            name=name,
            slots=self._slots,
            worker=AttemptWorker(
                settings, name=name, pool=self._pool, chunks=self._chunks, bodies=bodies, clock=epoch_ms
            ),
            outbox=self._outbox,
            is_cancelled=self._cancellations.cancelled,
            has_outcome=batch_index.has_outcome,
            was_attempted=seen_attempts.__contains__,
            clock=epoch_ms,
        )
        self._heartbeat = Heartbeat(
            settings,
            name=name,
            outbox=self._outbox,
            running=lambda: self._runner.running,
            upstreams_up=self._upstreams_up,
            clock=epoch_ms,
            unhealthy_reasons=self._pool.unhealthy_reasons,
        )
        self._commit_loop = CommitLoop(settings, runner=self._runner, outbox=self._outbox)
        self._consumers = QueueConsumers(
            settings,
            name=name,
            supervisor=supervisor,
            slots=self._slots,
            gate=self._gate,
            adaptive_limit=self._adaptive_limit,
            seen_attempts=seen_attempts,
            runner=self._runner,
            commit_loop=self._commit_loop,
            producer=producer,
        )
        self._directory = QueueDirectory(settings, name=name, on_change=self._consumers.add)

    async def open(self) -> None:
        """Start all parts; work is received once the cancelled ids are known and an upstream is reachable."""
        await self._chunks.start()
        self._gate.set_paused(NO_UPSTREAM, True)
        self._outbox.start(self._supervisor)
        self._pool.start(self._supervisor)
        self._adaptive_limit.start(self._supervisor)
        self._heartbeat.start(self._supervisor)
        await self._cancellations.open(self._runner.cancel)
        await self._batch_index.open()
        await self._attempt_events.open()
        self._commit_loop.start(self._supervisor)
        self._runner.progress.start(self._supervisor)
        await self._directory.open()
        self._open = True
        self._joining = self._supervisor.spawn(self._wait_until_joined(), name="wait-until-joined")

    async def close(self, deadline: Deadline) -> None:
        """Stop within the deadline: finish calls within the grace, return the rest, announce the shutdown.

        The groups are left before the grace begins: claimed work stays with this process, and everything else is
        reassigned at once.
        """
        self._open = False
        if self._joining is not None:
            self._joining.cancel()
        await self._directory.close()
        await self._consumers.stop(deadline)
        self._runner.return_items(waiting_only=True)
        await self._commit_loop.close()
        await self._runner.progress.close()
        await self._commit_loop.run_once(self._consumers.consumers, Deadline(deadline.left(1.5)), last=True)
        await self._consumers.leave(Deadline(deadline.left(1.0)))
        await self._runner.wait(Deadline(min(deadline.left() - 1.5, self._settings.dispatcher.shutdown_grace_s)))
        self._runner.return_items()
        await self._outbox.drained(Deadline(deadline.left() / 2))
        await self._heartbeat.close(Deadline(deadline.left() / 2))
        await self._outbox.close(Deadline(deadline.left() / 2))
        await self._cancellations.close()
        await self._batch_index.close()
        await self._attempt_events.close()
        await self._pool.close()
        await self._adaptive_limit.close()
        await self._chunks.stop()

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return whether work would be received now, with the reasons when not."""
        unhealthy_reasons = self._pool.unhealthy_reasons()
        missing = [
            f"{reason}: {unhealthy_reasons}" if reason == NO_UPSTREAM and unhealthy_reasons else reason
            for reason in self._gate.pause_reasons
        ]
        if not self._open:
            missing.append("queues and cancelled tasks are still being loaded")
        elif not self._consumers.joined:
            missing.append("not every queue consumer has joined its group")
        return not missing, {
            "missing": missing,
            "lanes": len(self._consumers.consumers),
            "running": self._runner.running,
            "upstreams_up": self._pool.up,
        }

    async def _wait_until_joined(self) -> None:
        """Report upstreams in the heartbeat only once the groups of all queues are joined.

        After a kill -9 a group waits for the session of the dead member; a dispatcher that reported ready before would
        let its first callers wait that long. Queues that are registered later change nothing.
        """
        while not self._consumers.joined:  # noqa: ASYNC110 - the readers tell nobody, and this ends within seconds
            await asyncio.sleep(JOINED_POLL_S)
        self._serving = True
        self._heartbeat.check_upstreams()

    def _upstreams_up(self) -> int:
        """Return the number of reachable upstreams for the heartbeat, 0 until all queues are consumed."""
        return self._pool.up if self._serving else 0

    def _on_outbox_capacity(self, has_capacity: bool) -> None:
        self._gate.set_paused(NO_KAFKA, not has_capacity)

    def _on_upstreams_changed(self) -> None:
        capacity = self._pool.capacity
        self._slots.resize(capacity)
        self._gate.set_paused(NO_UPSTREAM, capacity == 0)
        self._heartbeat.check_upstreams()
        metrics.UPSTREAMS_UP.set(self._pool.up)
