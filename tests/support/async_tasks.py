"""Async tasks of the OpenAI API at a site: submit one, look at it and list them at any of the ingresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.site import CHAT, Client
from tests.support.waiting import until

Task = dict[str, Any]


class AsyncTasks(Client):
    """A tenant that submits async tasks."""

    async def submit_async(self, *, at: int = 0, queue: str = "default", **sim: Any) -> str:
        """Submit an async task and return its id; `x_` members become headers."""
        headers = {f"X-Headrace-{name[2:]}": str(sim.pop(name)) for name in list(sim) if name.startswith("x_")}
        body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "async": True, "sim": sim}
        async with self.call("POST", CHAT, at=at, json=body, headers={"X-Headrace-Queue": queue, **headers}) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["id"])

    async def look(self, name: str, *, at: int = 0, wait_s: int = 0) -> Task:
        """Look at a task (`/ID`), or at a page of them (`?query`)."""
        prefer = {"prefer": f"wait={wait_s}"} if wait_s else None
        async with self.call("GET", f"/v1/tasks{name}", at=at, headers=prefer) as answer:
            assert answer.status == 200, await answer.text()
            found: Task = await answer.json()
            return found

    async def until(self, task_id: str, wanted: Callable[[Task], object], *, at: int = 0) -> Task:
        """Look again and again until a task is as wanted."""
        return await until(lambda: self.look(f"/{task_id}", at=at), wanted)

    async def names(self, query: str = "", *, at: int = 0) -> list[str]:
        """List the ids of a page."""
        return [one["id"] for one in (await self.look(query, at=at))["data"]]

    async def cancel_async(self, task_id: str, *, at: int = 0) -> tuple[int, Task]:
        """Cancel a task."""
        async with self.call("POST", f"/v1/tasks/{task_id}/cancel", at=at) as answer:
            return answer.status, await answer.json()
