"""The batch component: every process that runs it works on some of the partitions.

The consumer group over the offline results only distributes the partitions; nothing is consumed through it and no
offset is committed, because the state is in the batch rows. During a rebalance, or after a pause, two processes may
work on the same partition: that costs work, and has no other effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import TopicPartition

from core.clock import Deadline
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from dispatcher import metrics
from dispatcher.batches.index import BatchIndex
from dispatcher.batches.partition_worker import PartitionWorker
from dispatcher.batches.records import OFFLINE
from dispatcher.batches.submitter import FairShare
from dispatcher.group_consumer import GroupConsumer
from dispatcher.task_supervisor import TaskSupervisor
from schemas import topics

log = logging.getLogger(__name__)

GROUP = "batches"


class BatchAssignment(GroupConsumer):
    """A group member that consumes nothing."""

    owned: frozenset[int] = frozenset()

    def on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Store the assigned partitions, and pause them."""
        super().on_assigned(partitions)
        self.owned = frozenset(tp.partition for tp in partitions)
        for tp in partitions:
            self.pause(tp)


class BatchService:
    """Runs a worker for each assigned partition."""

    name = "batches"

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
        self._blobs = blobs
        self._producer = producer
        self._log_reader = LogReader(settings, name=name)
        self._batch_index = batch_index
        batch_index.on_change = self._changed
        self._fair_share = FairShare()
        self._assignment = BatchAssignment(
            settings,
            name=name,
            group=settings.topic(GROUP),
            topics=[settings.topic(topics.results(OFFLINE))],
            on_revoke=self._revoked,
        )
        self._workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start working; raises Unavailable."""
        await self._open_log_reader()
        await self._batch_index.open()
        self._task = self._supervisor.spawn(self._run(), name="batches")

    async def _open_log_reader(self) -> None:
        """Connect with retries: a busy broker must not end the process, which may run other components as well."""
        names = [self._settings.topic(topics.results(OFFLINE))]
        await self._log_reader.open_with_retry(names)

    async def close(self, deadline: Deadline) -> None:
        """Stop: the next owner continues from the batch rows."""
        self._stopping = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=deadline.left(1.0))
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stop_workers(set(self._workers))
        await self._assignment.close(deadline)
        await self._batch_index.close()
        await self._log_reader.close()

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return whether this process has its assignment."""
        joined = self._assignment.assigned
        return joined, {
            "missing": [] if joined else ["batch partitions not assigned yet"],
            "partitions": len(self._workers),
        }

    async def _run(self) -> None:
        while True:
            await self._assignment.poll(1)
            if self._stopping:
                return
            owned = self._assignment.owned if self._assignment.assigned else frozenset()
            await self._stop_workers(set(self._workers) - owned)
            for number in owned - set(self._workers):
                self._start_worker(number)
            metrics.BATCHES_OPEN.set(sum(len(self._batch_index.open_batches(number)) for number in self._workers))

    def _start_worker(self, number: int) -> None:
        worker = PartitionWorker(
            self._settings,
            number,
            batch_index=self._batch_index,
            log_reader=self._log_reader,
            blobs=self._blobs,
            producer=self._producer,
            fair_share=self._fair_share,
        )
        self._workers[number] = worker, self._supervisor.spawn(worker.run(), name=f"batches-{number}")

    async def _stop_workers(self, numbers: set[int]) -> None:
        tasks = [self._workers.pop(number)[1] for number in numbers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _revoked(self) -> None:
        await self._stop_workers(set(self._workers))

    def _changed(self, number: int) -> None:
        if (found := self._workers.get(number)) is not None:
            found[0].on_change()
