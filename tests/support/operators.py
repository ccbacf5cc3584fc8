"""The command line of whoever is on call, at a site with the tenants ops, acme and other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from click.testing import CliRunner, Result

from core.kafka.producer import Producer
from headrace.main import main
from tests.support.site import Client, Site, keys_file
from tests.support.task_log import TaskLog
from tests.support.waiting import eventually_async

KEYS = f'{keys_file("acme", "other")}[[tenants.ops.keys]]\nkey = "sk-ops"\nscopes = ["admin"]\n'
PLAIN = "plain"
"""A queue that nothing is done to."""


class Operators:
    """Commands, and tasks of tenants to use them on."""

    def __init__(self, site: Site, log: TaskLog, producer: Producer) -> None:
        self.site, self.log, self.producer = site, log, producer
        self.env = {**site.env, "HEADRACE_URL": site.urls[0], "HEADRACE_API_KEY": "sk-ops"}

    async def run(self, *arguments: str, code: int = 0) -> Result:
        """Run a command."""
        result = await asyncio.to_thread(CliRunner().invoke, main, list(arguments), env=self.env)
        assert result.exit_code == code, (arguments, result.output, result.exception)
        return result

    async def ask(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json and return what it prints."""
        return json.loads((await self.run(*arguments, "--json", code=code)).stdout)

    async def ask_elsewhere(self, *arguments: str, code: int = 0) -> Any:
        """Do the same in a process of its own, beside another command."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.main",
            *arguments,
            "--json",
            env={**os.environ, **self.env},
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await process.communicate()
        assert process.returncode == code, (arguments, told)
        return json.loads(told)

    async def put(self, queue: str, count: int = 1, *, tenant: str = "acme", **given: Any) -> list[str]:
        """Put tasks that nobody waits for; the queue is their key at the model server."""
        client = Client(self.site, tenant, queue)
        return await asyncio.gather(*(client.submit(key=queue, **given) for _ in range(count)))

    async def reached(self, ids: list[str], state: str) -> None:
        """Wait until all of some tasks are in a state."""
        await eventually_async(lambda: self.states(ids) == {state}, what=f"{state} of {len(ids)} tasks")

    def states(self, ids: list[str]) -> set[str]:
        """Return the states that tasks have reached."""
        return {self.log.state(one) for one in ids}

    async def goes_through(self, level: int = 0) -> None:
        """Show that the dispatcher works: a task of a queue that nothing is done to is completed."""
        await self.reached(await self.put(PLAIN, level=level), "completed")
