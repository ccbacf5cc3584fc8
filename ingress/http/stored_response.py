"""Large answers on their way from the object store to a client, never held whole and never complete when wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import HeadraceError
from core.storage.blobs import BlobStore
from schemas.common import Blob

log = logging.getLogger(__name__)

STALL_TIMEOUT_S = 60.0
"""A client that takes nothing from a full socket for this long counts as gone."""


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
