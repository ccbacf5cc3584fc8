"""The cluster of a campaign: a broker, an upstream and two of every role, each started again whenever it ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import aiohttp

from compose.local.broker import EmbeddedBroker
from compose.local.process import signal_group, spawn
from core.kafka.admin import apply_topics
from core.settings.models import Settings
from tests.support.ports import free_port
from tests.support.roles import Role, settings_for
from tests.support.waiting import eventually, eventually_async

Kind = Literal["kill", "freeze", "restart"]
BROKER = "broker"
START_S = 240.0
STOP_S = 20.0
KEEP_S = 0.05
LIMITS = {
    "streams__session_timeout_s": 6,
    "streams__lease_s": 3,
    "streams__retry_base_s": 0.2,
    "streams__retry_max_s": 1,
    "dispatcher__heartbeat_s": 0.5,
    "dispatcher__shutdown_grace_s": 3,
}
"""Short times, so that a campaign meets every time-out often; longer ones change how long a recovery takes, not what
is lost."""


def now_ms() -> int:
    """Read the wall clock, which the upstream's records are compared with."""
    return time.time_ns() // 1_000_000


class Member:
    """One process of a role; `url` only of an ingress."""

    def __init__(self, name: str, process: Role, url: str | None = None) -> None:
        self.name, self.process, self.url = name, process, url
        self.frozen = self.stopping = False
        self.starts = 0

    @property
    def role(self) -> str:
        """Return the name without the number."""
        return self.name.rpartition("-")[0]

    def start(self) -> None:
        """Start it."""
        self.starts += 1
        self.process.start()

    def is_running(self) -> bool:
        """Tell whether it has not ended."""
        return self.process.process is not None and self.process.process.poll() is None


class Cluster:
    """What the campaign does its harm to."""

    def __init__(self, broker: EmbeddedBroker, settings: Settings, members: list[Member], simulator: str) -> None:
        self.broker, self.settings, self.simulator = broker, settings, simulator
        self.members = {member.name: member for member in members}
        self.unasked = 0
        """Processes that ended without being asked: schedulers that noticed that they had been frozen, or crashes."""

    def urls(self) -> list[str]:
        """List the ingresses as a load balancer would: not those that hang."""
        return [each.url for each in self.members.values() if each.url and not each.frozen]

    async def kill(self, name: str) -> None:
        """Kill -9; a role is started again by `keep`, the broker here."""
        if name == BROKER:
            await asyncio.to_thread(self.broker.kill)
            await asyncio.to_thread(self.broker.start)
            await asyncio.to_thread(self.broker.wait_ready, START_S)
            return
        member = self.members[name]
        member.stopping = True
        await asyncio.to_thread(member.process.kill)
        member.start()
        member.stopping = False

    async def freeze(self, name: str, seconds: float) -> None:
        """Stop a process where it stands, and let it go on later."""
        member = self.members[name]
        member.frozen = True
        member.process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            member.process.send(signal.SIGCONT)
            member.frozen = False

    async def restart(self, name: str) -> None:
        """Stop a process as a deploy does, and start it again."""
        member = self.members[name]
        member.stopping = True
        await asyncio.to_thread(member.process.stop, within_s=STOP_S)
        member.start()
        member.stopping = False

    async def keep(self) -> None:
        """Start every process again that ended by itself, until cancelled."""
        while True:
            for member in self.members.values():
                if not (member.stopping or member.is_running()):
                    self.unasked += 1
                    member.start()
            await asyncio.sleep(KEEP_S)

    async def until_ready(self, *, within_s: float = START_S) -> None:
        """Return when every ingress sees the whole path work."""
        give_up = time.monotonic() + within_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            for url in self.urls():
                while not await _answers(session, f"{url}/readyz"):
                    assert time.monotonic() < give_up, f"{url} is not ready after {within_s:g} s"
                    await asyncio.sleep(0.1)

    def stop(self) -> None:
        """Stop everything: all are asked at once, those that do not hear are killed."""
        for member in self.members.values():
            if member.is_running():
                member.process.send(signal.SIGCONT)
                member.process.send(signal.SIGTERM)
        for member in self.members.values():
            try:
                member.process.stop(within_s=STOP_S)
            except subprocess.TimeoutExpired:
                member.process.kill()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _members(env: dict[str, str], folder: Path) -> list[Member]:
    ports = [free_port(), free_port()]
    commands: dict[str, tuple[str, ...]] = {
        f"ingress-{n}": ("ingress", "--port", str(port)) for n, port in enumerate(ports)
    }
    for level in ("online", "offline"):
        commands |= {f"{level}-{n}": ("streams", "--level", level) for n in range(2)}
    commands |= {f"dispatcher-{n}": ("dispatcher",) for n in range(2)}
    urls = {f"ingress-{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(ports)}
    return [
        Member(name, Role(*arguments, env=env, log=folder / f"{name}.log"), urls.get(name))
        for name, arguments in commands.items()
    ]


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """Run a cluster for the length of a block; logs stay in the folder."""
    broker = EmbeddedBroker(folder / "kafka", heap_mb=384, jvm_options=["-XX:TieredStopAtLevel=1"])
    port_file = folder / "simulator.port"
    # A process of its own: it has to answer and count while this one waits for a broker.
    command = [sys.executable, "-m", "bench.simulator", "--port-file", str(port_file)]
    simulator = spawn(command, log=folder / "simulator.log")
    running: Cluster | None = None
    try:
        await asyncio.to_thread(broker.start)
        await asyncio.to_thread(broker.wait_ready, START_S)
        await asyncio.to_thread(eventually, port_file.exists, what="the upstream's port")
        root = f"http://127.0.0.1:{port_file.read_text().strip()}"
        settings, env = settings_for(broker.bootstrap, folder, "campaign.", upstream__urls=[f"{root}/v1"], **LIMITS)
        await apply_topics(settings)
        running = Cluster(broker, settings, _members(env, folder), root)
        for member in running.members.values():
            member.start()
        # From the start: a scheduler that finds the machine itself stood still for seconds ends itself here too.
        keeper = asyncio.create_task(running.keep(), name="keeper")
        try:
            await running.until_ready()
            yield running
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
    finally:
        if running is not None:
            await asyncio.to_thread(running.stop)
        await asyncio.to_thread(broker.stop)
        signal_group(simulator, signal.SIGTERM)
        await eventually_async(lambda: simulator.poll() is not None, what="the end of the upstream")
