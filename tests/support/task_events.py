"""Streaming calls and the events of tasks at a site, read at any of the ingresses."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import aiohttp

from tests.support.site import Client

DONE = b"data: [DONE]\n\n"
END = "end"
"""The id of the last frame of all."""
COMMENT = re.compile(rb"^:.*\n", re.MULTILINE)


class Frame(NamedTuple):
    """One frame of the events."""

    event: str
    id: str
    data: str


class EventReader(Client):
    """A tenant that streams, and reads the events of its tasks."""

    def stream(self, *, at: int = 0, key: str | None = None, **sim: Any) -> Any:
        """Open a streaming call; with `key` it has an Idempotency-Key."""
        headers = {"Idempotency-Key": key} if key else None
        return self.call("POST", "/v1/queue/put", at=at, headers=headers, json=self.body(mode="streaming", **sim))

    def events(self, task_id: str, *, at: int, after: str | None = None) -> Any:
        """Open the events of a task, those after an id."""
        headers = {"Last-Event-ID": after} if after is not None else None
        return self.call("GET", f"/v1/tasks/{task_id}/events", at=at, headers=headers)

    async def read(self, task_id: str, *, at: int, after: str | None = None) -> list[Frame]:
        """Read the events of a task to their end."""
        async with self.events(task_id, at=at, after=after) as answer:
            return frames(await answer.read())

    async def stored(self, task_id: str, *, at: int) -> Any:
        """Return the stored result of a task once it has ended."""
        found = await self.ended(task_id, at=at)
        assert found["status"] in ("succeeded", "failed"), found
        return found["result"]["body"]


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


def chunks(found: list[Frame]) -> list[Frame]:
    """Return the frames that hold what the upstream sent."""
    return [frame for frame in found if frame.id not in ("", END)]


def text(found: list[Frame]) -> str:
    """Put the chunks together to what the upstream sent."""
    return "".join(f"data: {frame.data}\n\n" for frame in chunks(found)) + DONE.decode()


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
