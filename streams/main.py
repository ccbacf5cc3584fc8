"""One scheduler process: the parts that handle one level, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import NoReturn

from core.clock import epoch_ms
from core.errors import FatalError, SessionExpired, Unavailable
from core.instance_lock import claim_instance
from core.kafka.admin import wait_for_broker, wait_for_topics
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.observability.health_server import HealthServer
from core.queues import QueueDirectory
from core.settings.models import Settings
from core.storage.blobs import open_blobs
from schemas import topics
from schemas.topics import level_name
from streams.body_gc import BodySweeper
from streams.faust.app import InputHandlers, SchedulerApp
from streams.heartbeat import SchedulerHeartbeat
from streams.recovery.scan import (
    attempts_seen_before_crash,
    backfill_usage,
    results_without_state,
    start_offsets,
    sweep,
    sweep_batches,
)
from streams.scheduler import Scheduler
from streams.state_index import StateIndex
from streams.timers import Timers
from streams.work_topics import CONFIRM_S, WorkTopics, WorkTopicState

log = logging.getLogger(__name__)


class SchedulerProcess:
    """All parts of the scheduler of one level."""

    def __init__(self, settings: Settings, level: int, *, instance: int, folder: Path) -> None:
        self.settings = settings
        self.level = level
        self.name = f"{socket.gethostname()}-{level_name(level)}-{instance}"
        self.partitions: set[int] = set()
        """The owned partitions; every part reads this set, which changes at each rebalance."""
        self.producer = Producer(settings, name=f"{self.name}-scheduler", fence=self._fence)
        # A separate producer for timers: a large batch must not delay heartbeats and leases.
        self.timer_producer = Producer(settings, name=f"{self.name}-timers")
        self.lookup = LogReader(settings, name=f"{self.name}-lookup")
        self.queues = QueueDirectory(settings, name=self.name)
        self.index = StateIndex(batch_retention_ms=settings.batches.retention_s * 1000)
        work_topic_state = WorkTopicState()
        self.app = SchedulerApp(settings, level, folder=folder, instance=instance)
        self.scheduler = Scheduler(
            settings,
            level,
            producer=self.producer,
            lookup=self.lookup,
            queues=self.queues,
            index=self.index,
            rows=self.app.rows,
            batches=self.app.batches,
            work_topics=work_topic_state,
            seconds_since_heartbeat=self.app.seconds_since_heartbeat,
        )
        self.heartbeat = SchedulerHeartbeat(
            settings,
            level,
            name=self.name,
            producer=self.timer_producer,
            index=self.index,
            partitions=self.partitions,
            changed=self.scheduler.changed,
        )
        self.timers = Timers(
            settings,
            level,
            producer=self.timer_producer,
            lookup=self.lookup,
            index=self.index,
            rows=self.app.rows,
            batches=self.app.batches,
            partitions=self.partitions,
            kafka_since_ms=self.heartbeat.kafka_since_ms,
        )
        self.work_topics = WorkTopics(
            settings,
            level,
            lookup=self.lookup,
            producer=self.timer_producer,
            queues=self.queues,
            rows=self.app.rows,
            partitions=self.partitions,
            state=work_topic_state,
        )
        self.bodies = BodySweeper(
            settings, level, blobs=open_blobs(settings), rows=self.app.rows, partitions=self.partitions
        )

    async def _ready(self, partitions: set[int]) -> None:
        """Prepare assigned partitions: the table is recovered, and no event was delivered yet."""
        now_ms = epoch_ms()
        began = time.perf_counter()
        self.index.clear()
        count = await sweep(self.app.rows, self.index, sorted(partitions), now_ms=now_ms, rebuild=True)
        await sweep_batches(self.app.batches, self.index, sorted(partitions), now_ms=now_ms, rebuild=True)
        group, owned = self.app.app.conf.id, sorted(partitions)
        starts = await start_offsets(self.settings, self.level, group, owned, lookup=self.lookup)
        known = await results_without_state(self.settings, self.level, starts, lookup=self.lookup)
        self.scheduler.known_results = known
        await backfill_usage(self.settings, known, lookup=self.lookup, producer=self.producer)
        ends, attempts = await attempts_seen_before_crash(
            self.settings, self.level, starts, self.app.rows, lookup=self.lookup
        )
        self.scheduler.recovery.begin(ends, attempts)
        self.scheduler.offsets.reset({(tp.topic, tp.partition): offset for tp, offset in starts.items()})
        self.partitions.clear()
        self.partitions.update(partitions)
        self.scheduler.changed.set()
        log.info(
            "%s scheduler owns partitions %s: %d state records indexed in %.2f s",
            level_name(self.level),
            sorted(partitions),
            count,
            time.perf_counter() - began,
            extra={"event": "partitions_ready", "level": self.level},
        )

    async def _revoked(self) -> None:
        self.partitions.clear()
        self.scheduler.offsets.reset({})
        self.scheduler.recovery.begin({}, ())

    def _fence(self) -> None:
        """Abort a process that was suspended before it writes again: its partitions may have a new owner."""
        try:
            self.scheduler.check_freeze()
        except SessionExpired as error:
            self._abort(error)

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Return whether this process owns partitions, with the details for /readyz."""
        details: dict[str, object] = {"partitions": sorted(self.partitions)}
        if self.work_topics.missing:
            details["queues_without_work_topic"] = self.work_topics.missing
        return bool(self.partitions), details

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; a failure of any part ends the process."""
        await self.producer.start()
        await self.timer_producer.start()
        await self.queues.open()
        named = (topics.tasks, topics.events, topics.results)
        read = [*(name(self.level) for name in named), topics.USAGE]
        await self.lookup.open([self.settings.topic(name) for name in read])
        await self._check_work_topics()
        parts = {
            asyncio.create_task(self.scheduler.run(), name="scheduler"),
            asyncio.create_task(self.scheduler.watch_freeze(), name="watch-freeze"),
            asyncio.create_task(self.scheduler.watch_inputs(self.app.end_offset), name="watch-inputs"),
            asyncio.create_task(self.timers.run(), name="timers"),
            asyncio.create_task(self.bodies.run(), name="bodies"),
            asyncio.create_task(self.work_topics.run(), name="work-topics"),
            asyncio.create_task(self.heartbeat.run(), name="heartbeat"),
        }
        stopping = asyncio.create_task(stop.wait(), name="stop")
        handlers = InputHandlers(
            on_event=self.scheduler.offer,
            on_ready=self._ready,
            on_revoked=self._revoked,
            committable=self.scheduler.offsets.committable,
        )
        try:
            await self.app.start(handlers)
            parts.add(asyncio.create_task(self._crashed(), name="faust"))
            done, _ = await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        except Exception as error:  # noqa: BLE001 - a process that lost a part must give up its partitions
            self._abort(error)
        # Faust waits until the inbox is processed and acknowledged, then commits; the other parts stop after that.
        await self.app.stop()
        for task in {*parts, stopping}:
            task.cancel()
        await asyncio.gather(*parts, stopping, return_exceptions=True)
        await self.scheduler.intake.reply_topics.close()
        await self.lookup.close()
        await self.queues.close()
        await self.timer_producer.stop()
        await self.producer.stop()

    async def _check_work_topics(self) -> None:
        """Check before the first batch: a missing work topic may be what ended the previous process."""
        try:
            await self.work_topics.check()
            if self.work_topics.unconfirmed:
                await asyncio.sleep(CONFIRM_S)
                await self.work_topics.check()
        except Unavailable as error:
            log.warning("cannot check work topics: %s", error, extra={"event": "work_topic_check_failed"})

    def _abort(self, error: Exception) -> NoReturn:
        """End the process without any clean-up.

        A graceful stop would commit the offsets of the failed batch; and a clean-up that hangs while the broker is
        unreachable would leave a process that owns partitions and does nothing.
        """
        log.error(
            "scheduler stopped by an error: %s",
            error,
            exc_info=error,
            extra={"event": "scheduler_failed", "level": self.level},
        )
        logging.shutdown()
        os._exit(1)

    async def _crashed(self) -> None:
        reason = await self.app.wait_crashed()
        raise FatalError(f"the stream processor stopped: {reason or 'no reason given'}") from reason


async def serve(settings: Settings, stop: asyncio.Event, *, level: int) -> None:
    """Run the scheduler of one level until `stop` is set."""
    await wait_for_broker(settings)
    await wait_for_topics(settings)
    with claim_instance(settings.data_dir / f"streams-{level_name(level)}") as instance:
        process = SchedulerProcess(settings, level, instance=instance.number, folder=instance.folder)
        async with HealthServer(settings.metrics_host, settings.metrics_port, process.ready):
            await process.run(stop)
