"""Everything the routes work with, opened and closed together."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import OrderedDict
from contextlib import AsyncExitStack

from aiokafka import TopicPartition

from core.errors import Unavailable
from core.instance_lock import claim_instance
from core.kafka.admin import admin, wait_for_broker, wait_for_topics
from core.kafka.cluster import Cluster
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.queues import QueueDirectory
from core.settings.loader import api_keys
from core.settings.models import Settings
from core.storage.blobs import BlobStore, open_blobs
from ingress.auth.key_entry import KeyQuota
from ingress.auth.keys import Keys
from ingress.auth.keys_file import KeysFile
from ingress.auth.rate_limits import KeyLimits
from ingress.batches.commands import BatchCommands
from ingress.batches.directory import BatchDirectory
from ingress.files.directory import FileDirectory
from ingress.files.sweeper import FileSweeper
from ingress.metrics import Metrics
from ingress.read_model.cluster_liveness import ClusterLiveness
from ingress.read_model.deliveries import Deliveries
from ingress.read_model.recent_writes import RecentWrites
from ingress.read_model.task_view import TaskView
from ingress.submission.admission import QueueAdmission
from ingress.submission.compensation import CompensatingCancels
from ingress.submission.model_catalog import ModelCatalog
from ingress.submission.serial_slots import lease_slot, renew_slot
from ingress.submission.submitter import Submitter, Ticket
from ingress.waiting.waiters import Waiters
from schemas import topics
from schemas.ids import Serials
from schemas.records import Queue, Result

log = logging.getLogger(__name__)

REMEMBERED = 100_000
"""Tasks accepted here whose position is kept until their row is there: about 15 MB, half a minute at full speed."""

READ_S = 60.0


class Services:
    """The parts of one ingress; what needs Kafka is there once `open` has returned."""

    def __init__(self, settings: Settings) -> None:
        """Check what can be checked without Kafka; raises ConfigError."""
        self.settings = settings
        self.name = f"ingress-{socket.gethostname()}-{os.getpid()}"
        limits = KeyQuota(settings.auth.requests_per_minute, settings.auth.concurrency)
        self.keys_file = None if settings.auth.keys_file is None else KeysFile(settings.auth.keys_file, limits=limits)
        listed = self.keys_file.read() if self.keys_file is not None else ()
        self.keys = Keys(api_keys(settings), limits=limits, from_file=listed)
        self.limits = KeyLimits()
        self.metrics = Metrics()
        self.blobs: BlobStore = open_blobs(settings)
        self.producer = Producer(settings, name=self.name)
        self.backlog = QueueAdmission(settings, queue=self._queue, on_refused=self.metrics.queue_full)
        self.queues = QueueDirectory(settings, name=self.name, on_new=self.backlog.notice)
        self.lookup = LogReader(settings, name=self.name)
        self.cluster = Cluster(settings, name=self.name)
        self.waiters = Waiters(settings, name=self.name)
        self.pulse = ClusterLiveness(settings, name=self.name)
        self.catalogue = ModelCatalog(settings)
        self.withdrawals = CompensatingCancels(self.withdraw)
        self.deliveries = Deliveries(settings, name=self.name)
        self.files = FileDirectory(settings, name=self.name)
        self.batches = BatchDirectory(settings, name=self.name)
        self.reached = False
        self._view: TaskView | None = None
        self._submitter: Submitter | None = None
        self._batch_writer: BatchCommands | None = None
        self._stack = AsyncExitStack()
        self._accepted: OrderedDict[bytes, int] = OrderedDict()
        self.own_writes = RecentWrites()
        self._watch()

    @property
    def submitter(self) -> Submitter:
        """Return the way in; raises Unavailable until Kafka has been reached."""
        if self._submitter is None:
            raise Unavailable("this process has not reached Kafka yet; nothing was accepted, try again in some seconds")
        return self._submitter

    @property
    def batch_writer(self) -> BatchCommands:
        """Return the way in for batches; raises Unavailable until Kafka has been reached."""
        if self._batch_writer is None:
            raise Unavailable("this process has not reached Kafka yet; nothing was accepted, try again in some seconds")
        return self._batch_writer

    @property
    def view(self) -> TaskView:
        """Return the read model; raises Unavailable until Kafka has been reached."""
        if self._view is None:
            raise Unavailable("this process has not reached Kafka yet; try again in some seconds")
        return self._view

    async def open(self) -> None:
        """Wait for the broker and the topics, then start every part; raises ConfigError when the topics do not fit."""
        settings = self.settings
        self.catalogue.start()
        self._stack.push_async_callback(self.catalogue.close)
        await self._reach_broker()
        self.reached = True
        await wait_for_topics(settings)
        instance = self._stack.enter_context(claim_instance(settings.data_dir / "ingress"))
        await self.producer.start()
        self._stack.push_async_callback(self.producer.stop)
        serials = Serials(await lease_slot(settings, self.producer))
        renewing = asyncio.create_task(renew_slot(settings, self.producer, serials), name="renew-slot")
        self._stack.callback(renewing.cancel)
        await self.queues.open()
        self._stack.push_async_callback(self.queues.close)
        await self.waiters.tail.open()
        self._stack.push_async_callback(self.waiters.tail.close)
        read = [
            settings.topic(name(level)) for name in (topics.tasks, topics.results, topics.status) for level in (0, 1)
        ]
        read += [settings.topic(name) for name in (topics.CHUNKS, topics.DELIVERIES, topics.events(1))]
        read += [settings.topic(name) for name in (topics.FILES, topics.BATCHES)]
        await self.lookup.open(read)
        self._stack.push_async_callback(self.lookup.close)
        await self.pulse.open()
        self._stack.push_async_callback(self.pulse.close)
        async with admin(settings) as client:
            cluster = str((await client.describe_cluster())["cluster_id"])
        view = TaskView(settings, folder=instance.folder, name=self.name)
        self._stack.push_async_callback(view.close)
        cluster = f"{cluster}/{settings.kafka.topic_prefix}"
        await view.open(self.lookup, cluster=cluster)
        self._view = view
        self.backlog.follow(view)
        self._stack.callback(self.backlog.close)
        for queue in self.queues.all():
            self.backlog.notice(queue)
        self._stack.push_async_callback(self.deliveries.close)
        await self.deliveries.open(self.lookup, folder=instance.folder, cluster=cluster)
        await self._open_files()
        self._batch_writer = BatchCommands(settings, producer=self.producer, queues=self.queues, serials=serials)
        self._submitter = Submitter(
            settings, producer=self.producer, queues=self.queues, blobs=self.blobs, serials=serials
        )
        log.info(
            "accepting tasks with serial slot %d", serials.slot, extra={"event": "ingress_open", "slot": serials.slot}
        )

    async def close(self) -> None:
        """Stop every part, the last one started first."""
        await self.withdrawals.close()
        self._submitter = self._batch_writer = None
        await self._stack.aclose()

    def remember(self, ticket: Ticket, offset: int) -> None:
        """Keep where an accepted task stands, so that it can be shown before the scheduler has seen it."""
        self._accepted[ticket.key] = offset
        self.own_writes.add(ticket.owner, ticket.key)
        if len(self._accepted) > REMEMBERED:
            self._accepted.popitem(last=False)

    def accepted_at(self, key: bytes) -> int | None:
        """Return the offset of a task that was accepted here lately."""
        return self._accepted.get(key)

    async def cancel(self, ticket: Ticket, *, reason: str) -> None:
        """Ask for the cancel of a task whose client is gone; without Kafka its own deadline ends it."""
        try:
            await self.submitter.cancel(ticket.id, owner=ticket.owner, reason=reason)
        except Unavailable as error:
            log.warning(
                "task %s could not be cancelled: %s",
                ticket.text,
                error,
                extra={"event": "cancel_failed", "task_id": ticket.text},
            )

    async def withdraw(self, ticket: Ticket, reason: str) -> None:
        """Ask for the cancel of a task; raises Unavailable."""
        await self.submitter.cancel(ticket.id, owner=ticket.owner, reason=reason)

    async def body_of(self, result: Result) -> bytes | None:
        """Return the body of an outcome, from the object store when it is kept there; raises HeadraceError."""
        if result["body_ref"] is None:
            return result["body"]
        return await self.blobs.get(result["body_ref"])

    def _queue(self, name: str) -> Queue | None:
        return self.queues.get(name)

    @property
    def is_open(self) -> bool:
        """Tell whether everything has been opened."""
        return self._submitter is not None and self._view is not None

    def missing(self) -> list[str]:
        """Name what this process itself lacks once it is open; ingress/http/readiness.py checks the other roles."""
        lacking = [] if self.producer.healthy else ["the producer has lost Kafka and is being rebuilt"]
        if self._view is not None and not self._view.caught_up:
            lacking.append("the read model has not caught up yet")
        return lacking

    def topic_partition(self, topic: str, partition: int) -> TopicPartition:
        """Name a partition of a declared topic."""
        return TopicPartition(self.settings.topic(topic), partition)

    async def _open_files(self) -> None:
        """Follow files and batches, and sweep what is over of them."""
        for part in (self.batches, self.files):
            await part.open()
            self._stack.push_async_callback(part.close)
        sweeper = FileSweeper(
            blobs=self.blobs,
            producer=self.producer,
            files=self.files,
            batches=self.batches,
            sweep_s=self.settings.storage.sweep_s,
            ends_read=self._read_to_the_ends,
        )
        sweeping = asyncio.create_task(sweeper.run(), name="sweep-files")
        self._stack.callback(sweeping.cancel)

    async def _read_to_the_ends(self) -> None:
        for tail in (self.batches.tail, self.files.tail):
            ends = await self.lookup.bounds(list(tail.positions))
            async with asyncio.timeout(READ_S):
                for tp, (_, end) in ends.items():
                    await tail.wait_for_offset(tp, end - 1)

    async def _reach_broker(self) -> None:
        while True:
            try:
                return await wait_for_broker(self.settings)
            except Unavailable as error:
                log.warning("%s; still trying", error, extra={"event": "broker_unreachable"})

    def _watch(self) -> None:
        self.metrics.watch_waiting(lambda: len(self.waiters))
        self.metrics.watch_tail("answers", lambda: self.waiters.read_at)
        self.metrics.watch_tail("deliveries", lambda: self.deliveries.read_at)
        self.metrics.watch_tail("files", lambda: self.files.read_at)
        self.metrics.watch_tail("batches", lambda: self.batches.read_at)
        self.metrics.watch_tail("controls", lambda: self.pulse.read_at)
        self.metrics.watch_tail("view", lambda: self._view.read_at if self._view is not None else None)


class StartupTask:
    """Opens services in the background, so that probes and a plain 503 are answered meanwhile."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="ingress-open")

    async def done(self) -> None:
        """Return when the services are open; raises what kept them from opening."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Stop opening, and close what was opened."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._services.close()

    async def _run(self) -> None:
        try:
            await self._services.open()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits in done
            self._error = error
        finally:
            self._ended.set()
