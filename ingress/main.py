"""Run the application as a process: socket, uvicorn, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from core.errors import ConfigError
from core.settings.models import Settings
from ingress.api.dialects import DIALECTS
from ingress.app import create_app
from ingress.http.protocol import LimitedHttp

log = logging.getLogger(__name__)

BACKLOG = 2048
KEEP_ALIVE_S = 75
RESERVED_FILES = 256
"""Open files other than client connections: Kafka connections, the read model, the object store, logs."""
SHUTDOWN_GRACE_S = 5
"""Time for open requests and writes at shutdown; the whole process has 10 s."""


class Server(uvicorn.Server):
    """A server that leaves signal handling to the process runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; raises ConfigError when the port or the topics cannot be used."""
    connections = _allow_connections(settings.ingress.max_connections)
    app = create_app(settings)  # before the port is opened: it checks the keys
    with listen(settings.ingress.host, settings.ingress.port) as listener:
        server = Server(_config(app, connections))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http-server")
        stopping = asyncio.create_task(stop.wait(), name="stop-wait")
        opening = asyncio.create_task(app.state.opening.done(), name="opening-wait")
        try:
            await asyncio.wait({serving, stopping, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done() and opening.exception() is None:
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Open requests are answered first, then connections are closed.
            app.state.ingress.waiters.shut_down()
            server.should_exit = True
            stopping.cancel()
            await serving
        if not opening.cancel():
            opening.result()  # raises the error that stopped the ingress from opening


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket; raises ConfigError."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"ingress.port {port} cannot be opened on {host}: {error.strerror}; choose another with --port"
        ) from error
    listener.setblocking(False)
    port = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    log.info("listening on http://%s:%d", shown, port, extra={"event": "ingress_listening", "port": port})
    return listener


def _allow_connections(wanted: int) -> int:
    """Raise the limit of open files as far as the system allows; return how many connections may be open.

    At the usual limit of 1,024 further connections would fail without a response.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or wanted <= hard - RESERVED_FILES:
        return wanted
    allowed = max(1, hard - RESERVED_FILES)
    log.info(
        "ingress.max_connections is %d, but this system allows %d open files: beyond %d connections are refused",
        wanted,
        hard,
        allowed,
        extra={"event": "fd_limit_low"},
    )
    return allowed


def _config(app: FastAPI, connections: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=LimitedHttp.bounded(DIALECTS, max_connections=connections),
        ws="none",
        loop="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level=logging.ERROR,  # a log line for each invalid request would let anyone fill the disk
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )
