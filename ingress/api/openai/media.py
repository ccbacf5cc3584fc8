"""The calls of the OpenAI API whose bodies are forms: transcriptions, translations and edits of images."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from core.errors import HeadraceError, InvalidRequest, Unavailable
from ingress.api.openai.calls import Calls
from ingress.api.openai.serialization import Call, model_of
from ingress.auth.keys import Caller
from ingress.http.multipart import FormFile, FormLimits, FormRewriter
from ingress.http.request import idempotency_key
from ingress.http.uploads import FormUploads, ReceivedForm, require
from ingress.runtime import Ingress
from schemas.common import Blob

AUDIO = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "oga", "ogg", "opus", "wav", "webm")
AUDIO_TYPES = frozenset(
    f"{kind}/{name}"
    for kind in ("audio", "video", "application")
    for name in (*AUDIO, "x-flac", "x-m4a", "x-wav", "wave")
) | {"audio/vnd.wave"}
"""Media types that are accepted for files whose name has no known ending."""
IMAGE_FIELDS = ("image", "image[]")
READ = frozenset(("model", "async", "stream"))
DROPPED = frozenset(("async", "stream"))
"""Removed: the model server does not know the first, and the second follows the way the call is answered."""
FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Form(NamedTuple):
    """What one endpoint's forms hold."""

    files: frozenset[str]
    check: Callable[[FormFile], None]
    validate: Callable[[FormRewriter], None]
    can_stream: bool


def check_audio(file: FormFile) -> None:
    """Refuse a file of another format; raises InvalidRequest."""
    ending = file.name.rpartition(".")[2].lower()
    known = mimetypes.guess_type(f"a.{ending}")[0] not in (None, "application/octet-stream")
    if file.field == "file" and ending not in AUDIO and (known or file.media_type not in AUDIO_TYPES):
        raise InvalidRequest(
            f"the format of {file.name[:80]!r} is not supported; supported are {', '.join(AUDIO)}", field="file"
        )


def validate_audio_form(form: FormRewriter) -> None:
    """Refuse a form without its file, or with two; raises InvalidRequest."""
    require(form, "file")
    if form.files["file"] > 1:
        raise InvalidRequest("file must be given once", field="file")


def validate_images_form(form: FormRewriter) -> None:
    """Refuse a form without an image or a prompt, or with two masks; raises InvalidRequest."""
    if not any(form.files[name] for name in IMAGE_FIELDS):
        raise InvalidRequest("image is required", field="image")
    require(form, "prompt")
    if form.files["mask"] > 1:
        raise InvalidRequest("mask must be given once", field="mask")


AUDIO_FILES, IMAGE_FILES = frozenset(("file",)), frozenset((*IMAGE_FIELDS, "mask"))
FORMS: Mapping[str, Form] = {
    "/audio/transcriptions": Form(AUDIO_FILES, check_audio, validate_audio_form, can_stream=True),
    "/audio/translations": Form(AUDIO_FILES, check_audio, validate_audio_form, can_stream=False),
    "/images/edits": Form(IMAGE_FILES, lambda _: None, validate_images_form, can_stream=True),
}


class FormCalls:
    """Serves calls with a form for one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        settings = ingress.settings
        self._keys = ingress.keys
        self._calls = Calls(ingress)
        self._uploads = FormUploads(
            ingress.blobs,
            inline_bytes=settings.storage.inline_bytes,
            max_bytes=settings.ingress.max_upload_bytes,
        )

    async def serve(self, request: Request, endpoint: str, form: Form) -> Response:
        """Serve a call of an endpoint of the model server; raises RequestError and Unavailable."""
        caller = self._keys.caller(request, "submit")
        self._calls.check(request)
        upload = await self._received(request, endpoint, form, caller)
        stored = upload.data_ref
        try:
            answering = self._calls.answer(_call(endpoint, upload), request, caller=caller)
            del upload
            return await answering
        except HeadraceError:
            if stored is not None:
                await self._discard(stored)
            raise

    async def _received(self, request: Request, endpoint: str, form: Form, caller: Caller) -> ReceivedForm:
        rules = FormLimits(READ, DROPPED, form.files, self._uploads.max_bytes, form.check)

        def finish(arrived: FormRewriter) -> Mapping[str, str]:
            form.validate(arrived)
            model_of(arrived.fields.get("model"))
            _flag(arrived.fields, "async")
            streams = _flag(arrived.fields, "stream")
            if streams and not form.can_stream:
                raise InvalidRequest(f"stream is not supported by {endpoint}", field="stream")
            return {"stream": "true"} if streams else {}

        key = idempotency_key(request)
        same_as = None if key is None else f"{caller.owner}\n{key}"
        return await self._uploads.receive(request, rules, finish, same_as=same_as)

    async def _discard(self, stored: Blob) -> None:
        """Remove a form that became no body of a task; the sweeper removes later what cannot be removed now."""
        with suppress(Unavailable):
            await self._uploads.discard(stored)


def _call(endpoint: str, upload: ReceivedForm) -> Call:
    return Call(
        endpoint,
        model_of(upload.fields.get("model")),
        upload.data,
        data_ref=upload.data_ref,
        content_type=upload.content_type,
        streams=bool(_flag(upload.fields, "stream")),
        asynchronous=_flag(upload.fields, "async"),
    )


def _flag(fields: Mapping[str, str], name: str) -> bool | None:
    value = fields.get(name)
    if value is not None and value.strip().lower() not in FLAGS:
        raise InvalidRequest(f"{name} must be true or false", field=name)
    return None if value is None else FLAGS[value.strip().lower()]
