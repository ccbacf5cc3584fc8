"""One ingress: the parts that exist without Kafka, and the connection to Kafka once it has been reached."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack

from core.errors import Unavailable
from core.kafka.admin import wait_for_broker
from core.kafka.cluster import Cluster
from core.settings.loader import api_keys
from core.settings.models import Settings
from core.storage.blobs import BlobStore, open_blobs
from ingress.auth.key_entry import KeyQuota
from ingress.auth.keys import Keys
from ingress.auth.keys_file import KeysFile
from ingress.auth.rate_limits import KeyLimits
from ingress.connected import Connected, Local, connect
from ingress.metrics import Metrics
from ingress.submission.model_catalog import ModelCatalog
from ingress.waiting.waiters import Waiters

log = logging.getLogger(__name__)

NOT_CONNECTED = "this process has not reached Kafka yet; nothing was accepted, try again in some seconds"


class Ingress:
    """The parts of one ingress; those that need Kafka are handed out by `connected`."""

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
        self.cluster = Cluster(settings, name=self.name)
        self.waiters = Waiters(settings, name=self.name)
        self.model_catalog = ModelCatalog(settings)
        self.broker_reached = False
        self.connection: Connected | None = None
        """None until every part has been started, and again once closing has begun; routes use `connected`."""
        self._stack = AsyncExitStack()
        self._register_metrics()

    @property
    def local(self) -> Local:
        """The parts that the connected ones are built on."""
        return Local(
            self.settings, self.name, self.limits, self.metrics, self.blobs, self.waiters, cluster=self.cluster
        )

    def connected(self) -> Connected:
        """Return the parts that need Kafka; raises Unavailable until it has been reached."""
        if self.connection is None:
            raise Unavailable(NOT_CONNECTED)
        return self.connection

    async def open(self) -> None:
        """Wait for the broker and the topics, then start every part; raises ConfigError when the topics do not fit."""
        self.model_catalog.start()
        self._stack.push_async_callback(self.model_catalog.close)
        await self._reach_broker()
        self.broker_reached = True
        self.connection = await connect(self.local, self._stack)

    async def close(self) -> None:
        """Stop every part, the last one started first."""
        if self.connection is not None:
            await self.connection.compensation.close()
        self.connection = None
        await self._stack.aclose()

    async def _reach_broker(self) -> None:
        while True:
            try:
                return await wait_for_broker(self.settings)
            except Unavailable as error:
                log.warning("%s; still trying", error, extra={"event": "broker_unreachable"})

    def _register_metrics(self) -> None:
        self.metrics.watch_waiting(lambda: len(self.waiters))
        self.metrics.watch_tail("answers", lambda: self.waiters.read_at)
        followers: dict[str, Callable[[Connected], float | None]] = {
            "deliveries": lambda connected: connected.deliveries.read_at,
            "files": lambda connected: connected.files.read_at,
            "batches": lambda connected: connected.batches.read_at,
            "controls": lambda connected: connected.liveness.read_at,
            "view": lambda connected: connected.view.read_at,
        }
        for name, read_at in followers.items():
            self._register_follower(name, read_at)

    def _register_follower(self, name: str, read_at: Callable[[Connected], float | None]) -> None:
        self.metrics.watch_tail(name, lambda: None if self.connection is None else read_at(self.connection))


class StartupTask:
    """Opens an ingress in the background, so that probes and a plain 503 are answered meanwhile."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def start(self) -> None:
        """Begin opening."""
        self._task = asyncio.create_task(self._run(), name="ingress-open")

    async def done(self) -> None:
        """Return when the ingress is open; raises the error that stopped it from opening."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Stop opening, and close what was opened."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._ingress.close()

    async def _run(self) -> None:
        try:
            await self._ingress.open()
        except Exception as error:  # noqa: BLE001 - raised by `done`
            self._error = error
        finally:
            self._ended.set()
