"""The dispatcher role: inference, webhooks and batches."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from core.clock import Deadline
from core.errors import Unavailable
from core.kafka.admin import wait_for_broker, wait_for_topics
from core.kafka.producer import Producer
from core.observability.health_server import HealthServer
from core.settings.models import Settings
from core.storage.blobs import open_blobs
from dispatcher.batches.index import BatchIndex
from dispatcher.batches.service import BatchService
from dispatcher.inference.service import InferenceService
from dispatcher.task_supervisor import TaskSupervisor
from dispatcher.webhooks.service import WebhookService

log = logging.getLogger(__name__)

SHUTDOWN_S = 2.0
"""Time for the shutdown beyond the grace for running calls."""


class DispatcherPart(Protocol):
    """A component of the dispatcher."""

    name: str
    """Its member in the body of /readyz."""

    async def open(self) -> None:
        """Start working."""

    async def close(self, deadline: Deadline) -> None:
        """Stop within the deadline."""

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        """Return whether it works, with details for /readyz."""


def worker_name() -> str:
    """Return a unique name: host, pid, and a random part, because pids are reused."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set; raises FatalError when a component has failed."""
    supervisor = TaskSupervisor()
    starting = asyncio.create_task(_wait_for_kafka(settings), name="wait-kafka")
    stopping = asyncio.create_task(stop.wait(), name="wait-stop")
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    starting.result()
    name = worker_name()
    producer = Producer(settings, name=name)
    await producer.start()
    try:
        await _run_parts(settings, stop, supervisor, name, producer)
    finally:
        await producer.stop()


async def _wait_for_kafka(settings: Settings) -> None:
    await wait_for_broker(settings)
    await wait_for_topics(settings)


async def _run_parts(
    settings: Settings, stop: asyncio.Event, supervisor: TaskSupervisor, name: str, producer: Producer
) -> None:
    parts = _parts(settings, supervisor, name, producer)
    async with HealthServer(settings.metrics_host, settings.metrics_port, lambda: _ready(parts)):
        try:
            try:
                for part in parts:
                    await part.open()
            except KafkaError as error:
                raise Unavailable(f"Kafka at {settings.kafka.bootstrap}: {error}") from error
            log.info("dispatcher %s started", name, extra={"event": "dispatcher_started", "worker": name})
            await supervisor.wait(stop)
        finally:
            deadline = Deadline(settings.dispatcher.shutdown_grace_s + SHUTDOWN_S)
            await asyncio.gather(*(part.close(deadline) for part in parts))
            log.info("dispatcher %s stopped", name, extra={"event": "dispatcher_stopped", "worker": name})


def _parts(settings: Settings, supervisor: TaskSupervisor, name: str, producer: Producer) -> Sequence[DispatcherPart]:
    blobs = open_blobs(settings)
    batch_index = BatchIndex(settings, name=name)
    parts: list[DispatcherPart] = []
    if settings.dispatcher.component in ("all", "inference"):
        parts.append(
            InferenceService(
                settings, name=name, supervisor=supervisor, producer=producer, blobs=blobs, batch_index=batch_index
            )
        )
    if settings.dispatcher.component in ("all", "webhooks"):
        parts.append(
            WebhookService(settings, name=f"{name}-webhooks", supervisor=supervisor, producer=producer, blobs=blobs)
        )
    if settings.dispatcher.component in ("all", "batches"):
        parts.append(
            BatchService(
                settings,
                name=f"{name}-batches",
                supervisor=supervisor,
                producer=producer,
                blobs=blobs,
                batch_index=batch_index,
            )
        )
    return parts


def _ready(parts: Sequence[DispatcherPart]) -> tuple[bool, Mapping[str, Any]]:
    ready, detail = True, {}
    for part in parts:
        works, status = part.ready()
        ready = ready and works
        detail[part.name] = status
    return ready, detail
