"""Uploaded files: their records, and images in the form that models read.

A file is two objects of the store, uploads/ID with its bytes and uploads/ID.json with whose it is; the second is
written last, so a file is there as a whole or not at all. It can be named for `dify.upload_retention_s`.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Literal, TypedDict
from uuid import UUID, uuid4

import orjson
from starlette.requests import Request

from core.errors import HeadraceError, InvalidRequest
from core.settings.models import Settings
from core.storage.blobs import BlobMissing, BlobStore
from ingress.api.dify.form import receive, too_large
from ingress.api.dify.media import SEEN_BY_MODELS
from ingress.api.dify.request import Image, read_user
from schemas.common import Blob

PREFIX = "uploads/"


class DifyUpload(TypedDict):
    """The record of a file."""

    id: str
    owner: str
    user: str
    name: str
    kind: Literal["image", "audio", "video", "document"]
    extension: str
    mime_type: str
    created_at: int
    blob: Blob


class DifyUploads:
    """The files of all end users, in the object store."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._settings = settings

    async def keep(self, request: Request, *, owner: str) -> DifyUpload:
        """Store the file of a form; raises RequestError and Unavailable, and then stores nothing."""
        file_id = str(uuid4())
        settings = self._settings.dify
        received = await receive(request, blobs=self._blobs, name=PREFIX + file_id, settings=settings)
        try:
            upload: DifyUpload = {
                "id": file_id,
                "owner": owner,
                "user": read_user(received.user, require=self._settings.ingress.require_user),
                "name": received.media.name,
                "kind": received.media.kind,
                "extension": received.media.extension,
                "mime_type": received.media.mime_type,
                "created_at": int(time.time()),
                "blob": received.blob,
            }
            await self._blobs.put(orjson.dumps(upload), name=f"{PREFIX}{file_id}.json", media_type="application/json")
        except HeadraceError:
            await self._blobs.delete(received.blob)
            raise
        return upload

    async def urls(self, images: Sequence[Image], *, owner: str, user: str) -> list[str]:
        """Return an address for each image: as it was given, or a data: URL of the uploaded file.

        Raises InvalidRequest for a file that is not there or belongs to another user, DifyError when all are too large.
        """
        found = [None if image.upload_id is None else await self._find(image, owner, user) for image in images]
        limit = self._settings.ingress.max_body_bytes
        if sum(upload["blob"]["size"] for upload in found if upload is not None) * 4 // 3 > limit:
            raise too_large(f"the images of one request must be at most {limit} bytes in base64", field="files")
        return [
            image.url or "" if upload is None else await self._data_url(upload)
            for image, upload in zip(images, found, strict=True)
        ]

    async def _find(self, image: Image, owner: str, user: str) -> DifyUpload:
        upload = await self._read(image.upload_id or "")
        if upload is None or (upload["owner"], upload["user"]) != (owner, user):
            raise InvalidRequest(f"{image.field}.upload_file_id names no file of this user", field=image.field)
        if upload["mime_type"] not in SEEN_BY_MODELS:
            raise InvalidRequest(
                f"{image.field} is no image that models read: {upload['mime_type']}", field=image.field
            )
        return upload

    async def _read(self, file_id: str) -> DifyUpload | None:
        try:
            name = str(UUID(file_id))  # nothing but an id becomes part of a path
            upload: DifyUpload = orjson.loads(await self._blobs.read(f"{PREFIX}{name}.json"))
        except (ValueError, BlobMissing):
            return None
        over = time.time() - upload["created_at"] >= self._settings.dify.upload_retention_s
        return None if over else upload

    async def _data_url(self, upload: DifyUpload) -> str:
        data = await self._blobs.get(upload["blob"])
        encoded = await asyncio.to_thread(b64encode, data)
        return f"data:{upload['mime_type']};base64,{encoded.decode('ascii')}"


def file_object(upload: DifyUpload) -> dict[str, Any]:
    """Render an uploaded file; it has no URLs."""
    return {
        "id": upload["id"],
        "name": upload["name"],
        "size": upload["blob"]["size"],
        "extension": upload["extension"],
        "mime_type": upload["mime_type"],
        "created_by": upload["user"],
        "created_at": upload["created_at"],
        "preview_url": None,
        "source_url": None,
        "original_url": None,
        "user_id": upload["user"],
        "tenant_id": upload["owner"],
        "conversation_id": None,
        "file_key": None,
        "reference": None,
    }
