"""The parts of an ingress that need Kafka: they are started by `connect`, and exist only after Kafka was reached."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from core.instance_lock import claim_instance
from core.kafka.admin import admin, wait_for_topics
from core.kafka.cluster import Cluster
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.queues import QueueDirectory
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from ingress.auth.rate_limits import KeyLimits
from ingress.batches.commands import BatchCommands
from ingress.batches.directory import BatchDirectory
from ingress.batches.service import BatchOperations
from ingress.files.directory import FileDirectory
from ingress.files.lookup import FileLookup
from ingress.files.sweeper import FileSweeper
from ingress.metrics import Metrics
from ingress.pull.service import PullService
from ingress.read_model.cluster_liveness import ClusterLiveness
from ingress.read_model.deliveries import Deliveries
from ingress.read_model.recent_writes import RecentWrites
from ingress.read_model.task_lookup import TaskLookup
from ingress.read_model.task_view import TaskView
from ingress.submission.admission import QueueAdmission
from ingress.submission.compensation import CompensatingCancels
from ingress.submission.idempotency import DuplicateResolver
from ingress.submission.serial_slots import lease_slot, renew_slot
from ingress.submission.service import TaskSubmission
from ingress.submission.submitter import Submitter
from ingress.task_events.stream import TaskEvents
from ingress.waiting.long_poll import LongPolls
from ingress.waiting.waiters import Waiters
from schemas import topics
from schemas.ids import Serials

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 60.0
"""Time for the directories of files and batches to reach the end of their topics, before a sweep."""


@dataclass(frozen=True, slots=True)
class Local:
    """The parts of an ingress that exist without Kafka and that the connected parts are built on."""

    settings: Settings
    name: str
    """Client id of this process: host name and process id."""
    limits: KeyLimits
    metrics: Metrics
    blobs: BlobStore
    waiters: Waiters
    cluster: Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """Started clients and materialised views of Kafka topics."""

    producer: Producer
    serials: Serials
    queues: QueueDirectory
    log_reader: LogReader
    liveness: ClusterLiveness
    view: TaskView
    deliveries: Deliveries
    files: FileDirectory
    batches: BatchDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """Everything that serves requests with the help of Kafka."""

    producer: Producer
    queues: QueueDirectory
    log_reader: LogReader
    cluster: Cluster
    liveness: ClusterLiveness
    view: TaskView
    deliveries: Deliveries
    files: FileDirectory
    file_lookup: FileLookup
    batches: BatchDirectory
    batch_commands: BatchCommands
    batch_service: BatchOperations
    task_lookup: TaskLookup
    recent_writes: RecentWrites
    admission: QueueAdmission
    submitter: Submitter
    submission: TaskSubmission
    compensation: CompensatingCancels
    long_polls: LongPolls
    task_events: TaskEvents
    pull: PullService

    def unhealthy_reasons(self) -> list[str]:
        """Return what this process itself lacks; ingress/http/readiness.py checks the other roles."""
        reasons = [] if self.producer.healthy else ["the producer has lost Kafka and is being rebuilt"]
        if not self.view.caught_up:
            reasons.append("the read model has not caught up yet")
        return reasons


def assemble(local: Local, transport: Transport) -> Connected:
    """Build the parts of one ingress over started clients and views."""
    settings = local.settings
    producer, queues, log_reader, view = transport.producer, transport.queues, transport.log_reader, transport.view
    recent_writes = RecentWrites()
    admission = QueueAdmission(settings, view=view, queue=queues.get, on_refused=local.metrics.queue_full)
    submitter = Submitter(settings, producer=producer, queues=queues, blobs=local.blobs, serials=transport.serials)
    compensation = CompensatingCancels(submitter)
    batch_commands = BatchCommands(settings, producer=producer, queues=queues, serials=transport.serials)
    batch_service = BatchOperations(
        settings, log_reader=log_reader, directory=transport.batches, commands=batch_commands
    )
    task_lookup = TaskLookup(
        settings,
        view=view,
        log_reader=log_reader,
        blobs=local.blobs,
        waiters=local.waiters,
        recent_writes=recent_writes,
    )
    return Connected(
        producer=producer,
        queues=queues,
        log_reader=log_reader,
        cluster=local.cluster,
        liveness=transport.liveness,
        view=view,
        deliveries=transport.deliveries,
        files=transport.files,
        file_lookup=FileLookup(settings, files=transport.files, batches=transport.batches, batch_service=batch_service),
        batches=transport.batches,
        batch_commands=batch_commands,
        batch_service=batch_service,
        task_lookup=task_lookup,
        recent_writes=recent_writes,
        admission=admission,
        submitter=submitter,
        submission=TaskSubmission(
            settings,
            limits=local.limits,
            metrics=local.metrics,
            waiters=local.waiters,
            admission=admission,
            submitter=submitter,
            duplicates=DuplicateResolver(settings, view=view, log_reader=log_reader),
            recent_writes=recent_writes,
            compensation=compensation,
        ),
        compensation=compensation,
        long_polls=LongPolls(
            settings, view=view, task_lookup=task_lookup, waiters=local.waiters, metrics=local.metrics
        ),
        task_events=TaskEvents(settings, view=view, waiters=local.waiters, log_reader=log_reader, blobs=local.blobs),
        pull=PullService(
            settings, name=local.name, producer=producer, view=view, log_reader=log_reader, blobs=local.blobs
        ),
    )


async def connect(local: Local, stack: AsyncExitStack) -> Connected:
    """Wait for the topics, start every part and return them; raises ConfigError when the topics do not fit.

    The broker must have been reached. Closing `stack` stops the parts, the last one started first, also after a start
    that failed half-way.
    """
    settings, name = local.settings, local.name
    await wait_for_topics(settings)
    instance = stack.enter_context(claim_instance(settings.data_dir / "ingress"))
    producer = Producer(settings, name=name)
    await producer.start()
    stack.push_async_callback(producer.stop)
    serials = Serials(await lease_slot(settings, producer))
    renewing = asyncio.create_task(renew_slot(settings, producer, serials), name="renew-slot")
    stack.callback(renewing.cancel)
    queues = QueueDirectory(settings, name=name)
    await queues.open()
    stack.push_async_callback(queues.close)
    await local.waiters.tail.open()
    stack.push_async_callback(local.waiters.tail.close)
    log_reader = LogReader(settings, name=name)
    await log_reader.open([settings.topic(topic) for topic in _read_topics()])
    stack.push_async_callback(log_reader.close)
    liveness = ClusterLiveness(settings, name=name)
    await liveness.open()
    stack.push_async_callback(liveness.close)
    async with admin(settings) as client:
        cluster_id = str((await client.describe_cluster())["cluster_id"])
    identity = f"{cluster_id}/{settings.kafka.topic_prefix}"
    view = TaskView(settings, folder=instance.folder, name=name)
    stack.push_async_callback(view.close)
    await view.open(log_reader, cluster=identity)
    deliveries = Deliveries(settings, name=name)
    files, batches = FileDirectory(settings, name=name), BatchDirectory(settings, name=name)
    connected = assemble(
        local,
        Transport(
            producer=producer,
            serials=serials,
            queues=queues,
            log_reader=log_reader,
            liveness=liveness,
            view=view,
            deliveries=deliveries,
            files=files,
            batches=batches,
        ),
    )
    stack.callback(connected.admission.close)
    queues.subscribe(connected.admission.queue_registered)
    stack.push_async_callback(deliveries.close)
    await deliveries.open(log_reader, folder=instance.folder, cluster=identity)
    for directory in (batches, files):
        await directory.open()
        stack.push_async_callback(directory.close)
    sweeper = FileSweeper(
        blobs=local.blobs,
        producer=producer,
        files=files,
        batches=batches,
        sweep_s=settings.storage.sweep_s,
        ends_read=partial(_read_to_the_ends, log_reader, batches, files),
    )
    sweeping = asyncio.create_task(sweeper.run(), name="sweep-files")
    stack.callback(sweeping.cancel)
    log.info(
        "accepting tasks with serial slot %d", serials.slot, extra={"event": "ingress_ready", "slot": serials.slot}
    )
    return connected


def _read_topics() -> list[str]:
    """List the topics that are read at given offsets, without their prefix."""
    per_level = [name(level) for name in (topics.tasks, topics.results, topics.status) for level in (0, 1)]
    return [*per_level, topics.CHUNKS, topics.DELIVERIES, topics.events(1), topics.FILES, topics.BATCHES]


async def _read_to_the_ends(log_reader: LogReader, *directories: BatchDirectory | FileDirectory) -> None:
    """Return when the directories have read all that is in their topics now; raises Unavailable and TimeoutError."""
    for directory in directories:
        ends = await log_reader.bounds(list(directory.tail.positions))
        async with asyncio.timeout(READ_TIMEOUT_S):
            for tp, (_, end) in ends.items():
                await directory.tail.wait_for_offset(tp, end - 1)
