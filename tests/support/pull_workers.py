"""Bella's pull workers at a site, as the tests play them: take, run, complete, over HTTP alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Any

from tests.support.site import CHAT, Client, Site
from tests.support.waiting import until

ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "taken"}}]}
_names = itertools.count()


class PullWorkers:
    """Workers and producers, each a tenant, at any of the ingresses."""

    def __init__(self, site: Site) -> None:
        self.site, self.producer = site, Client(site, "producers")

    async def call(
        self, method: str, path: str, body: Any = None, *, tenant: str = "workers", at: int = 0
    ) -> tuple[int, Any]:
        """Send one request to one of the ingresses and return status and body."""
        async with Client(self.site, tenant).call(method, f"/v1/queue/{path}", at=at, json=body) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None

    async def queue(self, **changes: Any) -> str:
        """Register a new queue for the workers, and wait until both ingresses know it."""
        name = f"pull-{next(_names)}-{time.time_ns() % 1_000_000}"
        status, body = await self.call("POST", "register", {"queue": name, "endpoint": CHAT, **changes})
        assert (status, body) == (200, name)
        for at in range(len(self.site.urls)):
            await self.until_metadata(name, at=at, queue=name)
        return name

    async def until_metadata(self, queue: str, /, *, at: int = 0, **members: Any) -> None:
        """Wait until an ingress knows a queue, with these members."""

        async def known() -> dict[str, Any]:
            return dict((await self.call("GET", f"{queue}/metadata", at=at))[1] or {})

        await until(known, lambda found: members.items() <= found.items())

    async def until_counted(self, queue: str, *counts: int, at: int = 0) -> None:
        """Wait until an ingress counts so many tasks put, loaded and completed; of those that are given."""
        names = ("total_put_cnt", "total_loaded_cnt", "total_completed_cnt")[: len(counts)]

        async def counted() -> tuple[int, ...]:
            status, row = await self.call("GET", f"{queue}:0/stats", at=at)
            assert status == 200, row
            return tuple(row[name] for name in names)

        await until(counted, lambda found: found == counts)

    async def put(self, queue: str, number: int = 0, *, at: int = 0, **changes: Any) -> tuple[int, Any]:
        """Put a task as a producer."""
        data = {"model": "m", "messages": [], "number": number}
        body = {"queue": queue, "endpoint": CHAT, "data": data, **changes}
        return await self.call("POST", "put", body, tenant="producers", at=at)

    async def put_many(self, queue: str, count: int, **changes: Any) -> list[str]:
        """Put tasks over all ingresses and return their ids."""
        answers = await asyncio.gather(*(self.put(queue, n, at=n, **changes) for n in range(count)))
        assert {status for status, _ in answers} == {200}
        return [body["data"] for _, body in answers]

    async def take(self, *queues: str, at: int = 0, tenant: str = "workers", **members: Any) -> list[dict[str, Any]]:
        """Take tasks and return them all."""
        lanes = [name if ":" in name else f"{name}:0" for name in queues]
        status, body = await self.call("POST", "take", {"queues": lanes, **members}, at=at, tenant=tenant)
        assert status == 200, body
        assert set(body) <= set(lanes)
        return [one for tasks in body.values() for one in tasks]

    async def take_some(self, *queues: str, **members: Any) -> list[dict[str, Any]]:
        """Take until something comes."""
        return await until(lambda: self.take(*queues, **members))

    async def complete(self, task_id: str, *, at: int = 0, status_code: Any = 200, **members: Any) -> None:
        """Bring an outcome."""
        body = {"status_code": status_code, "request_id": task_id, **members}
        assert await self.call("POST", f"{task_id}/complete", body, at=at) == (200, task_id)
