"""Files and batches at a site, over HTTP at any of the ingresses."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from tests.support.site import CHAT, Client
from tests.support.waiting import until

ENDED = ("completed", "failed", "expired", "cancelled")


def requests(count: int, **sim: object) -> bytes:
    """Build a file of requests."""
    bodies = [{"model": "sim", "messages": [{"role": "user", "content": str(n)}], "sim": sim} for n in range(count)]
    return b"".join(json.dumps({"custom_id": f"c{n}", "body": body}).encode() + b"\n" for n, body in enumerate(bodies))


class BatchClient(Client):
    """A tenant with files and batches."""

    async def ask(self, method: str, path: str, *, at: int = 0, status: int = 200, **given: Any) -> Any:
        """Send a request that is to be answered with a status, and return the body."""
        async with self.call(method, path, at=at, **given) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json() if answer.content_type == "application/json" else await answer.read()

    async def upload(self, data: bytes, *, at: int = 0) -> Any:
        """Upload a file of requests."""
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", data, filename="requests.jsonl")
        return await self.ask("POST", "/v1/files", at=at, data=form)

    def of(self, file: Any, **changes: Any) -> dict[str, Any]:
        """Build the body that makes a batch of a file."""
        return {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **changes}

    async def create(self, file: Any, *, at: int = 0) -> Any:
        """Make a batch."""
        return await self.ask("POST", "/v1/batches", at=at, json=self.of(file))

    async def batch_ended(self, batch: Any, *, at: int = 0) -> Any:
        """Look until a batch has ended."""
        path = f"/v1/batches/{batch['id']}"
        return await until(lambda: self.ask("GET", path, at=at), lambda one: one["status"] in ENDED, within_s=150)

    async def passes(self, *, lines: int = 4) -> None:
        """Show that calls, streams, tasks and batches pass at both ingresses."""
        for at in (0, 1):
            answer = await self.put(at=at, mode="blocking")
            assert answer.status == 200, answer.body
            assert (await self.ended(answer.task_id, at=1 - at))["status"] == "succeeded"
            assert (await self.put(at=at, mode="streaming")).frames[-1] == b"[DONE]"
            assert (await self.ended(await self.submit(at=at, level=1), at=1 - at))["status"] == "succeeded"
        made = await self.create(await self.upload(requests(lines)), at=1)
        done = await self.batch_ended(made, at=1)
        assert (done["status"], done["request_counts"]["completed"]) == ("completed", lines)
        out = await self.ask("GET", f"/v1/batches/{made['id']}/output", at=1)
        assert {json.loads(line)["custom_id"] for line in out.splitlines()} == {f"c{n}" for n in range(lines)}
