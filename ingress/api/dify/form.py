"""The form of files/upload, read as it arrives: the file goes to the object store piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from core.errors import InvalidRequest
from core.settings.models import DifySettings
from core.storage.blobs import BlobStore
from ingress.api.dify.errors import DifyError
from ingress.api.dify.media import Media
from ingress.http.multipart import boundary_of, file_name_of
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
    boundary = _boundary(request)
    form = _Form(settings)
    parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]  # its TypedDict wants every callback
    async with AsyncExitStack() as stack:
        writer = None
        try:
            async for data in _pieces(request, form):
                parser.write(data)
                pieces = form.taken()
                if form.media is not None and writer is None:
                    writer = blobs.writer(name, media_type=form.media.mime_type)
                    await stack.enter_async_context(writer)
                for piece in pieces:
                    if writer is not None:
                        await writer.write(piece)
        except MultipartParseError:
            raise InvalidRequest("the body is no valid multipart form", field="body") from None
        if not form.ended:
            raise InvalidRequest("the multipart form breaks off before its end", field="body")
        if form.media is None or writer is None:
            raise DifyError("a form field file with a file in it is required", code="no_file_uploaded", field="file")
        user = form.user  # may raise, so before the file is there
        return Received(form.media, await writer.finish(), user)


class _Form:
    """What the parser's callbacks collect."""

    def __init__(self, settings: DifySettings) -> None:
        self._settings = settings
        self.most_bytes = MARGIN_BYTES + max(
            settings.max_image_bytes, settings.max_audio_bytes, settings.max_video_bytes, settings.max_other_bytes
        )
        self.media: Media | None = None
        self.ended = False
        self._pieces: list[bytes] = []
        self.file_bytes = 0
        self._user: bytes | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header = (b"", b"")
        self._field = b""

    def callbacks(self) -> dict[str, object]:
        """Return the parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    @property
    def user(self) -> str | None:
        """Return the field user."""
        try:
            return None if self._user is None else self._user.decode()
        except UnicodeDecodeError:
            raise InvalidRequest("user is not valid UTF-8", field="user") from None

    def taken(self) -> list[bytes]:
        """Return the pieces of the file that came since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin(self) -> None:
        self._headers, self._header, self._field = {}, (b"", b""), b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], self._header[1])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _header_end(self) -> None:
        self._headers[self._header[0].lower()] = self._header[1]
        self._header = (b"", b"")

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._field = options.get(b"name", b"")
        if self._field == b"user":
            self._user = b""
        name = file_name_of(self._headers.get(b"content-disposition", b""), options)
        if name is None:
            return
        if self._field != b"file":
            raise InvalidRequest("the file must be in the form field file", field="file")
        if self.media is not None:
            raise DifyError("one file at a time", code="too_many_files", field="file")
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        self.media = Media(name, content_type)
        self._field = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field == b"user" and self._user is not None:
            self._user += data[start:end]
            if len(self._user) > FIELD_BYTES:
                raise InvalidRequest("user is too long", field="user")
        elif self.media is not None and not self._field:
            self.file_bytes += end - start
            if self.file_bytes > (limit := self.media.limit(self._settings)):
                raise too_large(f"a file of kind {self.media.kind} must be at most {limit} bytes")
            self._pieces.append(data[start:end])

    def _end(self) -> None:
        self.ended = True


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


async def _pieces(request: Request, form: _Form) -> AsyncIterator[bytes]:
    """Yield a form as it comes; raises DifyError when it is too large, InvalidRequest, and ClientDisconnect."""
    if declared_length(request) > form.most_bytes:
        raise too_large(f"a form must be at most {form.most_bytes} bytes")
    size = 0
    async for data in body_pieces(request):
        size += len(data)
        if size - form.file_bytes > MARGIN_BYTES + len(data):
            raise InvalidRequest(f"what is beside the file must be at most {MARGIN_BYTES} bytes", field="body")
        yield data
