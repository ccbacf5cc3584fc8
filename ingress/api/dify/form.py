"""The form of files/upload, read as it arrives: the file goes to the object store piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

from starlette.requests import Request

from core.errors import InvalidRequest
from core.settings.models import DifySettings
from core.storage.blobs import BlobStore
from ingress.api.dify.errors import DifyError
from ingress.api.dify.media import Media
from ingress.http.multipart import FormFile, FormParser, boundary_of
from ingress.http.request import body_pieces, declared_length
from schemas.common import Blob

MARGIN_BYTES = 65_536
"""Bytes for boundaries, headers and other fields of a form, in addition to the largest file."""
FIELD_BYTES = 4_096


class Received(NamedTuple):
    """A file that is in the store."""

    media: Media
    blob: Blob
    user: str | None


async def receive(request: Request, *, blobs: BlobStore, name: str, settings: DifySettings) -> Received:
    """Store the file of a form under a name; raises RequestError, Unavailable, ClientDisconnect, then storing none."""
    form = _FileForm(_boundary(request), settings)
    async with AsyncExitStack() as stack:
        writer = None
        async for data in _pieces(request, form):
            form.write(data)
            pieces = form.taken()
            if form.media is not None and writer is None:
                writer = blobs.writer(name, media_type=form.media.mime_type)
                await stack.enter_async_context(writer)
            for piece in pieces:
                if writer is not None:
                    await writer.write(piece)
        form.check_end()
        if form.media is None or writer is None:
            raise DifyError("a form field file with a file in it is required", code="no_file_uploaded", field="file")
        user = form.user  # may raise, so before the file is stored
        return Received(form.media, await writer.finish(), user)


class _FileForm(FormParser):
    """A form with the fields file and user; other fields are ignored."""

    def __init__(self, boundary: bytes, settings: DifySettings) -> None:
        super().__init__(boundary)
        self._settings = settings
        self.most_bytes = MARGIN_BYTES + max(
            settings.max_image_bytes, settings.max_audio_bytes, settings.max_video_bytes, settings.max_other_bytes
        )
        self.media: Media | None = None
        self.file_bytes = 0
        self._pieces: list[bytes] = []
        self._user: bytes | None = None
        self._is_file = False

    @property
    def user(self) -> str | None:
        """Return the field user."""
        try:
            return None if self._user is None else self._user.decode()
        except UnicodeDecodeError:
            raise InvalidRequest("user is not valid UTF-8", field="user") from None

    def taken(self) -> list[bytes]:
        """Return the bytes of the file since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def part_started(self, file: FormFile | None) -> None:
        """Accept one file, in the field file."""
        self._is_file = file is not None
        if file is None:
            if self.field == "user":
                self._user = b""
            return
        if file.field != "file":
            raise InvalidRequest("the file must be in the form field file", field="file")
        if self.media is not None:
            raise DifyError("one file at a time", code="too_many_files", field="file")
        self.media = Media(file.name, file.media_type)

    def part_data(self, data: bytes) -> None:
        """Collect bytes of the file or of the user, within the limits."""
        if self._is_file and self.media is not None:
            self.file_bytes += len(data)
            if self.file_bytes > (limit := self.media.limit(self._settings)):
                raise too_large(f"a file of kind {self.media.kind} must be at most {limit} bytes")
            self._pieces.append(data)
        elif self.field == "user" and self._user is not None:
            self._user += data
            if len(self._user) > FIELD_BYTES:
                raise InvalidRequest("user is too long", field="user")


def too_large(message: str, field: str = "file") -> DifyError:
    """Build the refusal of a file that is too large."""
    return DifyError(message, code="file_too_large", status=413, field=field)


def _boundary(request: Request) -> bytes:
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is None:
        raise DifyError(
            "the body must be multipart/form-data with a field file", code="no_file_uploaded", field="content-type"
        )
    return boundary


async def _pieces(request: Request, form: _FileForm) -> AsyncIterator[bytes]:
    """Yield a form as it comes; raises DifyError when it is too large, InvalidRequest, and ClientDisconnect."""
    if declared_length(request) > form.most_bytes:
        raise too_large(f"a form must be at most {form.most_bytes} bytes")
    size = 0
    async for data in body_pieces(request):
        size += len(data)
        if size - form.file_bytes > MARGIN_BYTES + len(data):
            raise InvalidRequest(f"what is beside the file must be at most {MARGIN_BYTES} bytes", field="body")
        yield data
