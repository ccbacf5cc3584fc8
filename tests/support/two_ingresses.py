"""Two ingresses as processes, and a client that reads the events of tasks from either."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from bench.simulator import Simulator
from core.kafka.admin import apply_topics
from core.settings import Settings
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for

HEADERS = {"Authorization": "Bearer hr-local"}
DONE = b"data: [DONE]\n\n"
COMMENT = re.compile(rb"^:.*\n\n", re.MULTILINE)
PATIENT = aiohttp.ClientTimeout(total=120)


class Frame(NamedTuple):
    """One frame of the events."""

    event: str
    id: str
    data: str


class Two:
    """Two ingresses before the same Kafka."""

    def __init__(self, urls: list[str], roles: list[Role], settings: Settings, http: aiohttp.ClientSession) -> None:
        self.urls, self.roles, self.settings, self.http = urls, roles, settings, http

    async def submit(self, at: int, *, mode: str = "callback", level: int = 0, **sim: object) -> str:
        """Put a task that nobody waits for."""
        async with self.http.post(f"{self.urls[at]}/v1/queue/put", data=put_body(mode, level, **sim)) as answer:
            assert answer.status == 200
            return answer.headers["x-task-id"]

    def events(self, at: int, task_id: str, last: str | None = None) -> Any:
        """Open the events of a task."""
        headers = {"Last-Event-ID": last} if last is not None else {}
        return self.http.get(f"{self.urls[at]}/v1/tasks/{task_id}/events", headers=headers)

    async def stored(self, at: int, task_id: str) -> Any:
        """Return the stored result of a task that has ended."""
        give_up = time.monotonic() + 60
        while True:
            async with self.http.get(f"{self.urls[at]}/v1/queue/{task_id}") as answer:
                found = await answer.json()
            if found["status"] in ("succeeded", "failed"):
                return found["result"]["body"]
            assert time.monotonic() < give_up, found
            await asyncio.sleep(0.1)

    async def again(self, at: int) -> None:
        """Start an ingress anew."""
        self.roles[at].start()
        await until_ready(self.http, self.urls[at])


@asynccontextmanager
async def two_ingresses(kafka: str, folder: Path) -> AsyncIterator[Two]:
    """Run two ingresses, a scheduler for each level and a dispatcher before a simulated upstream."""
    async with (
        Simulator() as simulator,
        aiohttp.ClientSession(headers=HEADERS, timeout=PATIENT, connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        settings, env = settings_for(
            kafka, folder, f"events-{time.time_ns()}.", upstream__urls=[simulator.url], ingress__keep_alive_s=0.5,
            auth__api_keys=["hr-local", "other"], kafka__partitions=2, streams__lease_s=3, dispatcher__heartbeat_s=0.5,
        )  # fmt: skip
        await apply_topics(settings)
        ports = [free_port(), free_port()]
        commands = [
            *(("ingress", "--port", str(port)) for port in ports),
            ("streams", "--level", "online"), ("streams", "--level", "offline"), ("dispatcher",),
        ]  # fmt: skip
        with ExitStack() as stack:
            roles = [
                stack.enter_context(running(*arguments, env=env, log=folder / f"{number}.log"))
                for number, arguments in enumerate(commands)
            ]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            for url in urls:
                await until_ready(http, url)
            yield Two(urls, roles, settings, http)


async def until_ready(http: aiohttp.ClientSession, url: str) -> None:
    """Return when a process is ready."""
    give_up = time.monotonic() + 90
    while True:
        try:
            async with http.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
                said = await answer.text()
        except aiohttp.ClientError as error:
            said = str(error)
        assert time.monotonic() < give_up, said
        await asyncio.sleep(0.1)


def put_body(mode: str, level: int = 0, **sim: object) -> bytes:
    """Build the body of a put; `sim` says how the upstream behaves."""
    data = {"model": "sim", "messages": [{"role": "user", "content": "q"}], "sim": sim}
    put = {"queue": "events", "endpoint": "/v1/chat/completions", "response_mode": mode, "level": level, "data": data}
    return json.dumps(put).encode()


def frames(raw: bytes) -> list[Frame]:
    """Read whole frames; what a cut left of one is thrown away, as an event source does."""
    whole = COMMENT.sub(b"", raw[: raw.rfind(b"\n\n") + 2])
    found = []
    for block in whole.decode().split("\n\n")[:-1]:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        found.append(Frame(fields.get("event", ""), fields.get("id", ""), fields["data"]))
    return found


def text(found: list[Frame]) -> str:
    """Put the chunks together to what the upstream sent."""
    return "".join(f"data: {frame.data}\n\n" for frame in found if frame.id) + DONE.decode()


async def read_until(answer: aiohttp.ClientResponse, wanted: int) -> bytes:
    """Read until some of the upstream's frames have come."""
    raw = b""
    while raw.count(b'data: {"id":"chatcmpl-') < wanted:
        raw += await answer.content.readany()
    return raw


async def read_to_the_end(answer: aiohttp.ClientResponse) -> bytes:
    """Read until the end or the loss of the connection."""
    raw = b""
    try:
        async for data in answer.content.iter_any():
            raw += data
    except aiohttp.ClientError:
        pass
    return raw


async def read_all(two: Two, task_id: str, *, at: int = 0) -> list[Frame]:
    """Read the events of a task to their end."""
    async with two.events(at, task_id) as answer:
        return frames(await answer.read())
