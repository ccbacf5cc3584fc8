"""Responses that end early: a client that disconnects, a refused body that is drained, a body from the object store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.errors import HeadraceError
from core.storage.blobs import BlobStore
from ingress.http.request import ENDED
from schemas.common import Blob

log = logging.getLogger(__name__)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def on_disconnect(receive: Receive, gone: Callable[[], None]) -> AsyncIterator[None]:
    """Call `gone` once if the client disconnects while the block runs; the request body must have been read."""
    watch = asyncio.create_task(_until_gone(receive), name="disconnect-watch")
    watch.add_done_callback(lambda task: None if task.cancelled() else gone())
    try:
        yield
    finally:
        watch.cancel()


DRAIN_BYTES = 134_217_728
DRAIN_S = 15.0


class DrainingResponse(Response):
    """Sends another answer and drains the request's body before the end of it."""

    def __init__(self, answer: Response) -> None:
        super().__init__(status_code=answer.status_code)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client."""

        async def without_end(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await self._answer(scope, receive, without_end)
        if not scope.get(ENDED, False):
            await _drain(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    size = 0
    try:
        async with asyncio.timeout(DRAIN_S):
            while size <= DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


STALL_TIMEOUT_S = 60.0
"""A client that reads nothing from a full socket for this long counts as disconnected."""


class StoredResponse(Response):
    """Sends a stored body; one that turns out wrong on the way is cut off before its last piece."""

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], blob: Blob, *, status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(status_code=status, headers={**headers, "content-length": str(blob["size"])})
        self._pieces = pieces
        self._uri = blob["uri"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve one client; returning without an end makes the server close the connection."""
        try:
            async with aclosing(self._pieces) as pieces:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for piece in pieces:
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
        except HeadraceError as error:
            log.error("%s was cut off: %s", self._uri, error, extra={"event": "response_truncated", "code": error.code})
        except TimeoutError:
            log.info("the reader of %s is stuck", self._uri, extra={"event": "response_stalled"})
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def stored_response(
    blobs: BlobStore, blob: Blob, *, status: int, content_type: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a stored body; raises BlobMissing, BlobCorrupt when its size is wrong, and Unavailable."""
    pieces = await blobs.open(blob)
    return StoredResponse(pieces, blob, status=status, headers={**(headers or {}), "content-type": content_type})
