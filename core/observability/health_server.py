"""/livez, /readyz and /metrics for the roles that serve no HTTP of their own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from core.errors import ConfigError

log = logging.getLogger(__name__)

Ready = Callable[[], tuple[bool, Mapping[str, Any]]]

GRACE_S = 1.0
"""A scrape takes milliseconds; shutdown must not wait longer for one."""


class HealthServer:
    """Serves as long as its `async with` block lasts; with port 0 it does nothing.

    Args:
        ready: asked at each /readyz; (False, why) answers 503 with the detail as JSON.
    """

    def __init__(self, host: str, port: int, ready: Ready) -> None:
        self._host = host
        self._port = port
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        if not self._port:
            return self
        app = web.Application()
        app.add_routes([web.get("/livez", _livez), web.get("/readyz", self._readyz), web.get("/metrics", _metrics)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"metrics_port {self._port} cannot be opened on {self._host}: {error.strerror}; choose another, or 0"
            ) from error
        log.info("metrics on port %d", self._port, extra={"event": "health_started", "port": self._port})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _readyz(self, _: web.Request) -> web.Response:
        ok, detail = self._ready()
        body = json.dumps({"ready": ok} | dict(detail), default=str)
        return web.Response(text=body, status=200 if ok else 503, content_type="application/json")


async def _livez(_: web.Request) -> web.Response:
    return web.json_response({"live": True})


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
