"""Receive a form: its parts are streamed to the object store while they arrive; no file is held in memory."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from starlette.requests import Request

from core.errors import InvalidRequest, UnsupportedType
from core.storage.blobs import STAGING_PREFIX, BlobStore
from core.storage.spool import Spool
from ingress.http.multipart import FormLimits, FormRewriter, boundary_of, too_large
from ingress.http.request import body_pieces, declared_length
from schemas.common import Blob

FORM_BYTES = 1_048_576
"""Limit of boundaries, part headers and plain fields, in addition to the files."""


class ReceivedForm(NamedTuple):
    """A received form as the upstream gets it: small ones inline, others in the store."""

    fields: Mapping[str, str]
    content_type: str
    data: bytes | None
    data_ref: Blob | None


Finish = Callable[[FormRewriter], Mapping[str, str]]
"""Validates a complete form and returns fields to add; raises InvalidRequest."""


class FormUploads:
    """Receives forms into one store."""

    def __init__(self, blobs: BlobStore, *, inline_bytes: int, max_bytes: int) -> None:
        """`max_bytes` bounds the files of one form together."""
        self._blobs = blobs
        self._inline_bytes = inline_bytes
        self.max_bytes = max_bytes

    async def receive(
        self, request: Request, rules: FormLimits, finish: Finish, *, same_as: str | None = None
    ) -> ReceivedForm:
        """Store a form; raises RequestError, Unavailable and ClientDisconnect, and then nothing of it is stored.

        Args:
            same_as: names a request that may be retried, such as its idempotency key; equal forms then have equal
                bytes.
        """
        boundary = boundary_of(request.headers.get("content-type", ""))
        if boundary is None:
            raise UnsupportedType("the body must be of type multipart/form-data", field="content-type")
        token = secrets.token_hex(16) if same_as is None else sha256(same_as.encode()).hexdigest()[:32]
        new_boundary = f"headrace-{token}"
        form = FormRewriter(boundary, rules, new_boundary=new_boundary)
        content_type = f"multipart/form-data; boundary={new_boundary}"
        name = f"{STAGING_PREFIX}{secrets.token_hex(16)}"
        spool = Spool(lambda: self._blobs.writer(name, media_type=content_type), inline_bytes=self._inline_bytes)
        try:
            async for data in pieces(request, most_bytes=self.max_bytes):
                await spool.write(form.feed(data))
            form.check_end()
            await spool.write(form.close(finish(form)))
            return ReceivedForm(form.fields, content_type, *await spool.finish())
        finally:
            spool.discard()

    async def discard(self, upload: Blob) -> None:
        """Delete a form that became no task body; raises Unavailable."""
        await self._blobs.delete(upload)


async def pieces(request: Request, *, most_bytes: int, limit: str = "ingress.max_upload_bytes") -> AsyncIterator[bytes]:
    """Yield a form as it arrives; raises TooLarge when its files must exceed `most_bytes`, and ClientDisconnect."""
    most = most_bytes + FORM_BYTES
    if declared_length(request) > most:
        raise too_large(most_bytes, field="body", limit=limit)
    size = 0
    async for data in body_pieces(request):
        size += len(data)
        if size > most:
            raise too_large(most_bytes, field="body", limit=limit)
        if data:
            yield data


def require(form: FormRewriter, *names: str) -> None:
    """Refuse a form that lacks a field or a file; raises InvalidRequest naming the first."""
    for name in names:
        if name not in form.names:
            raise InvalidRequest(f"{name} is required", field=name)
