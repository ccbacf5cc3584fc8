"""The roles as compose.yaml runs them: same commands, same environment, but as plain processes on the test broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.simulator import Simulator
from compose.local.plan import ROLES
from tests.support import compose_file
from tests.support.ports import free_port

KEY = "a-key-for-the-test"
BIN = Path(sys.executable).parent


class Role:
    """One service as a process."""

    def __init__(self, service: Mapping[str, Any], environ: Mapping[str, str], folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        self.grace_s = compose_file.seconds(service.get("stop_grace_period", "10s"))
        self._environ = dict(environ)
        self._probe = service.get("healthcheck", {}).get("test", [])[1:]
        with self.log.open("wb") as log:
            command = [BIN / "headrace", *service["command"]]
            self.process = subprocess.Popen(command, env=self._environ, cwd=folder, stdout=log, stderr=log)

    async def healthy(self) -> bool:
        """Run the health command of the service."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        return await asyncio.to_thread(subprocess.call, self._probe, env=self._environ, stderr=subprocess.DEVNULL) == 0

    async def stop(self) -> int:
        """Stop as Docker does; being killed after the grace period fails the test."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, self.grace_s)


class Started:
    """All roles of the file, and the addresses that stand in for those in the containers."""

    def __init__(self, kafka: str, upstream: str, folder: Path) -> None:
        given = {"HEADRACE_AUTH_API_KEYS": KEY, "HEADRACE_UPSTREAM_URLS": upstream}
        self.services = compose_file.roles(compose_file.load(given))
        self.kafka = kafka
        self.folder = folder
        self.port = free_port()
        self.prefix = f"compose-{uuid.uuid4().hex[:8]}."
        self.roles: dict[str, Role] = {}

    def start(self, name: str) -> Role:
        """Start one service, with its host names, ports and paths replaced by those of this machine."""
        metrics_port = free_port()
        replaced = {
            "kafka:9092": self.kafka,
            "8080": str(self.port),
            "9100": str(metrics_port),
            "/var/lib/headrace": str(self.folder / "state"),
        }
        service = dict(self.services[name])
        environ = {key: replaced.get(value, value) for key, value in service["environment"].items()}
        # Other tests use the broker, too.
        environ |= {"HEADRACE_KAFKA_TOPIC_PREFIX": self.prefix, "PATH": f"{BIN}:{os.defpath}"}
        if check := service.get("healthcheck"):
            *words, url = check["test"]
            port = self.port if name == "ingress" else metrics_port
            service["healthcheck"] = {"test": [*words, f"http://127.0.0.1:{port}/{url.rpartition('/')[2]}"]}
        self.roles[name] = Role(service, environ, self.folder, name)
        return self.roles[name]

    def put(self, key: str) -> tuple[int, bytes]:
        """Submit a task and wait for its answer."""
        task = {
            "queue": "composed",
            "endpoint": "/v1/chat/completions",
            "response_mode": "blocking",
            "data": {"model": "sim-instant", "messages": [{"role": "user", "content": "hello"}]},
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/queue/put", orjson.dumps(task), {"Authorization": f"Bearer {key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
async def started(kafka: str, tmp_path: Path) -> AsyncIterator[Started]:
    async with Simulator() as simulator:
        everything = Started(kafka, simulator.url, tmp_path)
        try:
            yield everything
        finally:
            for role in everything.roles.values():
                role.process.kill()
                role.process.wait()


async def test_the_roles_start_with_exactly_this_environment(started: Started) -> None:
    topics = started.start("topics")
    assert await asyncio.to_thread(topics.process.wait, 60) == 0, topics.log.read_text()
    for name in ROLES:
        started.start(name)
    waiting = set(ROLES)

    async def all_healthy() -> None:
        while waiting:
            for name in sorted(waiting):
                if await started.roles[name].healthy():
                    waiting.remove(name)

    await asyncio.wait_for(all_healthy(), 90)

    status, body = await asyncio.to_thread(started.put, KEY)
    assert status == 200, body
    assert orjson.loads(body)["choices"][0]["message"]["role"] == "assistant"
    assert (await asyncio.to_thread(started.put, "hr-local"))[0] == 401, "the key of loopback must not open this one"

    for name in ("ingress", "dispatcher", "streams-online", "streams-offline"):
        assert await started.roles[name].stop() == 0, started.roles[name].log.read_text()[-2000:]
