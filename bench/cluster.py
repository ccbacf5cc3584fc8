"""A broker and chosen roles as processes on free ports, for one measurement."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bench.procstat import CpuMeter, resident_mb
from compose.local.broker import EmbeddedBroker
from compose.local.ports import free_port
from core.kafka.admin import apply_topics
from core.settings.loader import environment, load_settings
from core.settings.models import Settings

KEY = "hr-local"
START_S = 90


class Cluster:
    """What runs for a measurement; `pids` names every process but the load's own."""

    def __init__(self, broker: EmbeddedBroker, settings: Settings, env: Mapping[str, str], folder: Path) -> None:
        self.broker, self.settings, self._env, self._folder = broker, settings, env, folder
        self._roles: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """The ingress."""
        return f"http://{self.settings.ingress.host}:{self.settings.ingress.port}"

    def pids(self, *, broker: bool = False) -> dict[str, int]:
        """Return the processes of ours, and the broker's if wanted."""
        found = {name: process.pid for name, process in self._roles.items()}
        if broker and self.broker.pid:
            found["broker"] = self.broker.pid
        return found

    def meter(self, *, broker: bool = False) -> CpuMeter:
        """Measure CPU time of our roles."""
        return CpuMeter(self.pids(broker=broker))

    def memory_mb(self) -> dict[str, float]:
        """Return the resident memory of each role."""
        return {name: found for name, pid in self.pids().items() if (found := resident_mb(pid)) is not None}

    def start(self, name: str, *arguments: str) -> None:
        """Start a role, or any module with the same environment when the first argument is -m."""
        command = [sys.executable, *(arguments if arguments[0] == "-m" else ("-m", "headrace.main", *arguments))]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._roles[name] = subprocess.Popen(command, env={**self._env}, stdout=log, stderr=log)

    def stop(self, name: str) -> None:
        """Stop a role."""
        process = self._roles.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        """Stop every role, the newest first."""
        for name in reversed([*self._roles]):
            self.stop(name)

    async def until_answers(self, path: str) -> None:
        """Wait until the ingress answers 200."""
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                try:
                    async with session.get(self.url + path) as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await until(answers, what=f"{path} at {self.url}")


async def until(condition: Callable[[], object], *, what: str, within_s: float = START_S) -> None:
    """Poll a condition, plain or async."""
    give_up = time.monotonic() + within_s
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def cluster(**flags: object) -> AsyncIterator[Cluster]:
    """Start a broker with all topics; flags are dotted setting names with __ for the dot."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        broker = EmbeddedBroker(folder / "kafka")
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(broker.wait_ready, START_S)
        dotted: dict[str, object] = {
            "data_dir": str(folder),
            "kafka.bootstrap": broker.bootstrap,
            "ingress.port": free_port(),
            "log.level": "warning",
            **{name.replace("__", "."): value for name, value in flags.items()},
        }
        settings = load_settings(flags=dotted, environ={})
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        running = Cluster(broker, settings, {**clean, **environment(dotted)}, folder)
        try:
            await apply_topics(settings)
            yield running
        finally:
            await asyncio.to_thread(running.stop_all)
            await asyncio.to_thread(broker.stop)
