"""One task as the in-memory ingress sees it, and the frames that its events consist of."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from ingress.http import sse
from ingress.task_events.transcript import Run
from schemas import ids, topics
from schemas.codec import RESULT
from schemas.records import Result, Task
from tests.support import records
from tests.support.bella import chunk, row_of
from tests.support.memory_ingress import Memory
from tests.support.results import result_of
from tests.support.waiting import eventually_async

FRAMES = [b'{"n":1}', b'{"n": 2}', b'{"n":3,"text":"\xc3\xa9"}']
TEXT = sse.frames(FRAMES) + b"data: [DONE]\n\n"
TAG = Run(1, "w1").tag.encode()
DONE = b"id: end\ndata: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n"


class Story:
    """One task and what becomes of it."""

    def __init__(self, memory: Memory, client: httpx.AsyncClient, *, mode: str = "streaming") -> None:
        self.memory, self.client = memory, client
        owner = memory.ingress.keys.holder("hr-local", "read").owner
        self.id = records.task_id(mode=mode[0].upper())
        self.task: Task = records.task(id=self.id, mode=mode, owner=owner)
        self.path = f"/v1/tasks/{self.id}/events"

    def row(self, state: str = "processing", **changes: Any) -> None:
        self.memory.row(row_of(self.task, 0, state=state, worker="w1", started_ms=2_000, **changes))

    def chunk(self, seq: int, *frames: bytes, **changes: Any) -> None:
        self.memory.tell([chunk(self.task, seq, *(frames or FRAMES[seq : seq + 1]), **changes)])

    def end(self, row: dict[str, Any] | None = None, **changes: Any) -> None:
        streamed = (
            {"content_type": sse.MEDIA_TYPE, "body": TEXT, "chunks": 3} if self.task["mode"] == "streaming" else {}
        )
        result: Result = result_of(self.id, **{"mode": self.task["mode"]} | streamed | changes)
        offset = self.memory.arrive(topics.results(0), self.id, RESULT.encode(result))
        names = ("state", "status_code", "error_code", "error_message", "attempt", "worker")
        ended: dict[str, Any] = {name: result[name] for name in names}  # type: ignore[literal-required]
        self.memory.row(row_of(self.task, 0, **ended | {"result_offset": offset, "finished_ms": 3_000} | (row or {})))

    def open(self, **headers: str) -> asyncio.Task[bytes]:
        return asyncio.create_task(self._read(headers))

    async def _read(self, headers: dict[str, str]) -> bytes:
        response = await self.client.get(self.path, headers={"last-event-id": headers["last"]} if headers else {})
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == sse.MEDIA_TYPE
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-task-id"] == self.id
        return response.content.replace(KEEP_ALIVE, b"")

    async def opened(self, viewers: int = 1) -> None:
        def there() -> bool:
            follower = self.memory.ingress.waiters._followers.get(self.id.encode())
            return follower is not None and follower.ready and len(follower._viewers) == viewers

        await eventually_async(there, what="the viewers")


def status(story: Story, state: str, *, attempt: int = 1, progress: int = 0, more: str = "") -> bytes:
    task = ids.parse(story.id).task()
    told = f'{{"id":"{task}","status":"{state}","attempt":{attempt},"progress":{progress}{more}}}'
    return b"event: status\ndata: " + told.encode() + b"\n\n"


def frames(begin: int = 0, end: int = 3, *, tag: bytes = TAG) -> bytes:
    numbers = range(begin + 1, end + 1)
    return b"".join(b"id: %b-%d\n%b" % (tag, number, sse.frame(FRAMES[number - 1])) for number in numbers)
