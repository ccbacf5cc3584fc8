from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from core.errors import ConfigError
from core.observability.health_server import HealthServer

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def test_it_tells_of_life_readiness_and_metrics() -> None:
    state: tuple[bool, dict[str, Any]] = (False, {"kafka": "unreachable"})
    port = free_port()
    async with (
        HealthServer(HOST, port, lambda: state),
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False) as client,
    ):
        assert (await client.get("/livez")).status_code == 200
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "kafka": "unreachable"})
        state = (True, {})
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "python_info" in metrics.text
        assert (await client.get("/elsewhere")).status_code == 404


async def test_port_0_opens_nothing() -> None:
    async with HealthServer(HOST, 0, lambda: (True, {})) as server:
        assert server._runner is None


async def test_the_port_is_free_again_afterwards() -> None:
    port = free_port()
    for _ in range(2):
        async with HealthServer(HOST, port, lambda: (True, {})):
            pass


async def test_a_port_in_use_is_a_config_error() -> None:
    port = free_port()
    async with HealthServer(HOST, port, lambda: (True, {})):
        with pytest.raises(ConfigError, match=f"metrics_port {port} cannot be opened on {HOST}: .*in use"):
            await HealthServer(HOST, port, lambda: (True, {})).__aenter__()
