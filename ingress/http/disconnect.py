"""Notice that a client went away, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import Receive


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def on_disconnect(receive: Receive, gone: Callable[[], None]) -> AsyncIterator[None]:
    """Call `gone` once when the client goes away within the block; the request's body must have been read."""
    watch = asyncio.create_task(_until_gone(receive), name="disconnect-watch")
    watch.add_done_callback(lambda task: None if task.cancelled() else gone())
    try:
        yield
    finally:
        watch.cancel()
