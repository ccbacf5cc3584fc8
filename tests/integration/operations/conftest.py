"""One of each role before a simulator, with keys of three tenants, and the command line of whoever is on call."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from bench.simulator import Simulator
from core.settings import Settings
from headrace.main import main
from tests.integration.test_idempotency import until_ready
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.scheduler_probe import SchedulerProbe, scheduler_probe
from tests.support.waiting import eventually_async

KEYS = """
[[tenants.ops.keys]]
key = "sk-ops"
scopes = ["admin"]
[[tenants.acme.keys]]
key = "sk-acme"
[[tenants.other.keys]]
key = "sk-other"
"""
LONG_S = 60


class Site:
    """The roles, and what can be done from outside."""

    def __init__(
        self, url: str, roles: dict[str, Role], simulator: Simulator, settings: Settings, env: dict[str, str]
    ) -> None:
        self.url, self.roles, self.simulator, self.settings = url, roles, simulator, settings
        self._env = {**env, "HEADRACE_URL": url, "HEADRACE_API_KEY": "sk-ops"}
        self.probes: dict[int, SchedulerProbe] = {}
        self._down: set[str] = set()

    def stop(self, name: str, *, kill: bool = False) -> None:
        """Stop a role until it is started again."""
        self._down.add(name)
        (self.roles[name].kill if kill else self.roles[name].stop)()

    def start(self, name: str) -> None:
        """Start a role that was stopped."""
        self._down.discard(name)
        self.roles[name].start()

    def supervise(self) -> None:
        """Start again what has ended by itself, as a scheduler does that was not run for longer than its session."""
        for name, role in self.roles.items():
            if name not in self._down and role.process is not None and role.process.poll() is not None:
                role.start()

    async def ready(self) -> None:
        """Return when the whole path works."""
        supervising = asyncio.create_task(self._supervising(), name="supervise")
        try:
            await until_ready(self.url)
        finally:
            supervising.cancel()

    async def _supervising(self) -> None:
        while True:
            self.supervise()
            await asyncio.sleep(0.5)

    async def run(self, *arguments: str, code: int = 0) -> Result:
        """Run a command."""
        result = await asyncio.to_thread(CliRunner().invoke, main, list(arguments), env=self._env)
        assert result.exit_code == code, (arguments, result.output, result.exception)
        return result

    async def asked(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json and return what it prints."""
        return json.loads((await self.run(*arguments, "--json", code=code)).stdout)

    async def put(self, queue: str, count: int = 1, *, level: int = 0, key: str = "sk-acme", **sim: Any) -> list[str]:
        """Put tasks that nobody waits for."""
        data = {"model": "sim", "messages": [{"role": "user", "content": "x"}], "sim": {"key": queue, **sim}}
        body = {"queue": queue, "endpoint": "/v1/chat/completions", "level": level, "data": data}
        headers = {"authorization": f"Bearer {key}"}

        async def one(session: aiohttp.ClientSession) -> str:
            async with session.post(f"{self.url}/v1/queue/put", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                return str((await answer.json())["data"])

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as session:
            return await asyncio.gather(*(one(session) for _ in range(count)))

    def arrivals(self, queue: str) -> int:
        """Count the calls of a queue at the model server."""
        stats = self.simulator.stats
        return stats.keys[queue].arrivals if queue in stats.keys else 0

    def states(self, ids: list[str], level: int = 0) -> set[str]:
        """Return the states that tasks have reached."""
        self.supervise()
        rows = self.probes[level].row_states
        return {rows[one][-1] if rows.get(one) else "unknown" for one in ids}

    async def reached(self, ids: list[str], state: str, level: int = 0) -> None:
        """Wait until all of some tasks are in a state."""
        what = f"{state} of {len(ids)} tasks"
        await eventually_async(lambda: self.states(ids, level) == {state}, within_s=LONG_S, what=what)

    async def goes_through(self, level: int = 0) -> None:
        """Show that the dispatcher works: a task of a queue that nothing is done to is completed."""
        await self.reached(await self.put("plain", level=level), "completed", level)


@pytest.fixture(scope="package")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("operations")
    (folder / "keys.toml").write_text(KEYS)
    async with Simulator() as simulator:
        settings, env = settings_for(
            kafka, folder, f"operate-{time.time_ns()}.", upstream__urls=[simulator.url], kafka__partitions=2,
            kafka__work_partitions=2, streams__session_timeout_s=6, streams__lease_s=5, dispatcher__heartbeat_s=0.5,
            auth__keys_file=str(folder / "keys.toml"), ingress__auto_register=False,
        )  # fmt: skip
        port = free_port()
        async with scheduler_probe(settings, 0) as online, scheduler_probe(settings, 1) as offline:
            with ExitStack() as stack:
                commands = {
                    "online": ("streams", "--level", "online"), "offline": ("streams", "--level", "offline"),
                    "dispatcher": ("dispatcher",), "ingress": ("ingress", "--port", str(port)),
                }  # fmt: skip
                roles = {
                    name: stack.enter_context(running(*arguments, env=env, log=folder / f"{name}.log"))
                    for name, arguments in commands.items()
                }
                made = Site(f"http://127.0.0.1:{port}", roles, simulator, settings, env)
                made.probes = {0: online, 1: offline}
                await made.ready()
                await made.run("queues", "register", "plain")
                yield made
