"""Bella's pull workers as the tests play them: take, run, complete, over HTTP alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for

ENDPOINT = "/v1/chat/completions"
KEYS = """
[[tenants.workers.keys]]
key = "sk-workers"
[[tenants.producers.keys]]
key = "sk-producers"
[[tenants.admins.keys]]
key = "sk-admins"
scopes = ["submit", "read", "admin"]
"""
_names = itertools.count()


class PullSite:
    """Two ingresses over one scheduler per level and a dispatcher."""

    def __init__(
        self, urls: Sequence[str], session: aiohttp.ClientSession, simulator: Simulator, roles: Sequence[Role]
    ) -> None:
        self.urls, self.session, self.simulator, self.roles = urls, session, simulator, roles

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str = "sk-workers", at: int = 0
    ) -> tuple[int, Any]:
        """Send one request to one of the ingresses and return status and body."""
        async with self.session.request(
            method,
            f"{self.urls[at % len(self.urls)]}/v1/queue/{path}",
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {key}"},
        ) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None

    async def queue(self, **changes: Any) -> str:
        """Register a new queue for the workers."""
        name = f"pull-{next(_names)}-{time.time_ns() % 1_000_000}"
        status, body = await self.call("POST", "register", {"queue": name, "endpoint": ENDPOINT, **changes})
        assert (status, body) == (200, name)
        for at in range(len(self.urls)):
            await self.until_metadata(name, at=at, queue=name)
        return name

    async def until_metadata(self, queue: str, /, *, at: int = 0, **members: Any) -> None:
        """Wait until an ingress knows a queue, with these members."""
        give_up = time.monotonic() + 30
        while not members.items() <= ((await self.call("GET", f"{queue}/metadata", at=at))[1] or {}).items():
            assert time.monotonic() < give_up, f"ingress {at} does not know that {queue} is {members}"
            await asyncio.sleep(0.02)

    async def until_counted(self, queue: str, *counts: int, at: int = 0) -> None:
        """Wait until an ingress counts so many tasks put, loaded and completed; of those that are given."""
        give_up = time.monotonic() + 30
        names = ("total_put_cnt", "total_loaded_cnt", "total_completed_cnt")[: len(counts)]
        while True:
            status, row = await self.call("GET", f"{queue}:0/stats", at=at)
            assert status == 200, row
            if tuple(row[name] for name in names) == counts:
                return
            assert time.monotonic() < give_up, f"{row} instead of {counts}"
            await asyncio.sleep(0.02)

    async def put(self, queue: str, number: int = 0, *, at: int = 0, **changes: Any) -> tuple[int, Any]:
        """Put a task as a producer."""
        data = {"model": "m", "messages": [], "number": number}
        body = {"queue": queue, "endpoint": ENDPOINT, "data": data, **changes}
        return await self.call("POST", "put", body, key="sk-producers", at=at)

    async def stream(self, queue: str) -> bytes:
        """Put a streaming task and return everything that comes."""
        body = {"queue": queue, "endpoint": ENDPOINT, "data": {"messages": []}, "response_mode": "streaming"}
        headers = {"Authorization": "Bearer sk-producers"}
        url = f"{self.urls[0]}/v1/queue/put"
        async with self.session.post(url, data=json.dumps(body), headers=headers) as answer:
            return await answer.read()

    @property
    def scheduler(self) -> Role:
        """Return the scheduler of the online level."""
        return self.roles[len(self.urls)]

    async def put_many(self, queue: str, count: int, **changes: Any) -> list[str]:
        """Put tasks over both ingresses and return their ids."""
        answers = await asyncio.gather(*(self.put(queue, n, at=n, **changes) for n in range(count)))
        assert {status for status, _ in answers} == {200}
        return [body["data"] for _, body in answers]

    async def take(self, *queues: str, at: int = 0, key: str = "sk-workers", **members: Any) -> list[dict[str, Any]]:
        """Take tasks and return them all."""
        lanes = [name if ":" in name else f"{name}:0" for name in queues]
        status, body = await self.call("POST", "take", {"queues": lanes, **members}, at=at, key=key)
        assert status == 200, body
        assert set(body) <= set(lanes)
        return [one for tasks in body.values() for one in tasks]

    async def take_some(self, *queues: str, within_s: float = 30, **members: Any) -> list[dict[str, Any]]:
        """Take until something comes."""
        give_up = time.monotonic() + within_s
        while not (taken := await self.take(*queues, **members)):
            assert time.monotonic() < give_up, f"nothing to take from {queues} within {within_s:g} s"
        return taken

    async def complete(self, task_id: str, *, at: int = 0, status_code: Any = 200, **members: Any) -> None:
        """Bring an outcome."""
        body = {"status_code": status_code, "request_id": task_id, **members}
        assert await self.call("POST", f"{task_id}/complete", body, at=at) == (200, task_id)

    async def show(self, task_id: str, *, at: int = 0) -> dict[str, Any]:
        """Get a task as its producer."""
        status, body = await self.call("GET", task_id, key="sk-producers", at=at)
        assert status == 200, body
        return dict(body)

    async def ended(self, task_id: str) -> dict[str, Any]:
        """Get a task as its producer once it has ended; what one ingress knows, the other learns a moment later."""
        give_up = time.monotonic() + 30
        while (found := await self.show(task_id))["status"] in ("waiting", "queued"):
            assert time.monotonic() < give_up, found
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def yard(kafka: str, folder: Path) -> AsyncIterator[PullSite]:
    """Start the roles and give the yard once they are ready."""
    (folder / "keys.toml").write_text(KEYS)
    async with Simulator() as simulator, aiohttp.ClientSession() as session:
        settings, env = settings_for(
            kafka, folder, f"yard-{time.time_ns()}.", upstream__urls=[simulator.url],
            auth__keys_file=str(folder / "keys.toml"), webhooks__allow_private=True, dispatcher__concurrency=8,
        )  # fmt: skip
        await apply_topics(settings)
        ports = [free_port(), free_port()]
        commands = [
            *(("ingress", "--port", str(port)) for port in ports),
            *(("streams", "--level", level) for level in ("online", "offline")),
            ("dispatcher",),
        ]
        with ExitStack() as stack:
            roles = [
                stack.enter_context(running(*arguments, env=env, log=folder / f"{arguments[0]}-{number}.log"))
                for number, arguments in enumerate(commands)
            ]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                await until_ready(session, url)
            yield PullSite(urls, session, simulator, roles)


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until a whole path works."""
    give_up, said = time.monotonic() + 60, ""
    while True:
        try:
            async with session.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
                said = await answer.text()
        except aiohttp.ClientError as error:
            said = str(error)
        assert time.monotonic() < give_up, said
        await asyncio.sleep(0.1)
