"""Receive a file: its bytes are streamed to the object store, and visible once the form is complete and valid."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson
from starlette.requests import Request

from core.clock import epoch_ms
from core.errors import InvalidRequest, UnsupportedType
from core.storage.blobs import BlobStore
from ingress.files.directory import BLOBS, new_file_id
from ingress.http.multipart import FormFile as Part
from ingress.http.multipart import FormLimits, FormRewriter, boundary_of
from ingress.http.request import check_members
from ingress.http.uploads import pieces, require
from schemas.batches import BatchFile

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
EXPIRES = "expires_after"
ANCHOR, SECONDS = f"{EXPIRES}[anchor]", f"{EXPIRES}[seconds]"
SPELLINGS = {ANCHOR: ANCHOR, SECONDS: SECONDS, f"{EXPIRES}.anchor": ANCHOR, f"{EXPIRES}.seconds": SECONDS}
"""Names of nested form fields that clients use → the name of the API."""
FIELDS = frozenset(("purpose", EXPIRES, *SPELLINGS))
KNOWN = ("file", "purpose", ANCHOR, SECONDS, EXPIRES, *SPELLINGS)
MIN_EXPIRES_S, MAX_EXPIRES_S = 3_600, 2_592_000
BATCH_EXPIRES_S = 2_592_000
"""Default expiry of files with purpose batch, 30 days; other files are stored until they are deleted."""
MAX_NAME = 255
LIMIT = "batches.max_bytes"
_SECONDS = re.compile(r"[0-9]{1,9}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


async def receive_file(request: Request, blobs: BlobStore, *, owner: str, most_bytes: int) -> BatchFile:
    """Store the file of a form; raises RequestError, Unavailable and ClientDisconnect, then nothing is stored.

    The record is still to be written.
    """
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is None:
        raise UnsupportedType("the body must be of type multipart/form-data", field="content-type")
    found = _Head()
    rules = FormLimits(FIELDS, FIELDS, frozenset(("file",)), most_bytes, found.check, bare=True, limit=LIMIT)
    form = FormRewriter(boundary, rules, new_boundary="")
    now_ms = epoch_ms()
    file_id = new_file_id(now_s=now_ms // 1000)
    async with blobs.writer(BLOBS + file_id, media_type="application/octet-stream") as writer:
        async for data in pieces(request, most_bytes=most_bytes, limit=LIMIT):
            if taken := form.feed(data):
                await writer.write(taken)
        form.check_end()
        purpose, expires_ms = validated_form(form, now_ms=now_ms)
        blob = await writer.finish()
    return {
        "id": file_id,
        "owner": owner,
        "purpose": purpose,
        "filename": found.name,
        "blob": blob,
        "created_ms": now_ms,
        "expires_ms": expires_ms,
    }


class _Head:
    """The headers of the file part."""

    def __init__(self) -> None:
        self.name = ""

    def check(self, part: Part) -> None:
        """Store the file name; raises InvalidRequest for any other file."""
        if part.field != "file":
            raise InvalidRequest("the file must be in the form field file", field="file")
        name = re.split(r"[/\\]", part.name)[-1]
        if not name or _CONTROLS.search(name) or len(name) > MAX_NAME:
            raise InvalidRequest(
                f"the name of the file must be 1 to {MAX_NAME} characters without controls", field="file"
            )
        self.name = name


def validated_form(form: FormRewriter, *, now_ms: int) -> tuple[str, int | None]:
    """Return the purpose of a file and when it expires; raises InvalidRequest naming the field."""
    check_members(dict.fromkeys(form.names), KNOWN, of="this form")
    require(form, "file", "purpose")
    if form.files["file"] > 1:
        raise InvalidRequest("file must be given once", field="file")
    purpose = form.fields["purpose"].strip()
    if purpose not in PURPOSES:
        raise InvalidRequest(f"purpose must be one of {', '.join(PURPOSES)}", field="purpose")
    seconds = expiry_s(form.fields, purpose=purpose)
    return purpose, None if seconds is None else now_ms + seconds * 1000


def expiry_s(fields: Mapping[str, str], *, purpose: str) -> int | None:
    """Read expires_after: both of its members or none; raises InvalidRequest."""
    given = _expires_after(fields)
    if not given:
        return BATCH_EXPIRES_S if purpose == "batch" else None
    if given.get(ANCHOR) != "created_at":
        raise InvalidRequest(f"{ANCHOR} must be created_at", field=ANCHOR)
    text = given.get(SECONDS, "")
    if not _SECONDS.fullmatch(text) or not MIN_EXPIRES_S <= int(text) <= MAX_EXPIRES_S:
        raise InvalidRequest(f"{SECONDS} must be a whole number from {MIN_EXPIRES_S} to {MAX_EXPIRES_S}", field=SECONDS)
    return int(text)


def _expires_after(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the members as the API names them, whichever way the client spells an object in a form.

    That is with brackets, with dots, as JSON, or as the seconds alone. What is given in two ways is refused.
    """
    pairs = [(SPELLINGS[name], text) for name, text in fields.items() if name in SPELLINGS]
    if EXPIRES in fields:
        whole = fields[EXPIRES].strip()
        pairs += [(ANCHOR, "created_at"), (SECONDS, whole)] if _SECONDS.fullmatch(whole) else _of_json(whole)
    given: dict[str, str] = {}
    for name, text in pairs:
        if name in given:
            raise InvalidRequest(f"{name} was given twice", field=name)
        given[name] = text.strip()
    return given


def _of_json(text: str) -> list[tuple[str, str]]:
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError:
        members = None
    if not isinstance(members, dict) or not members:
        message = f"{EXPIRES} must be seconds, or an object with anchor and seconds, such as {ANCHOR}"
        raise InvalidRequest(message, field=EXPIRES)
    check_members(members, ("anchor", "seconds"), of=EXPIRES)
    return [(f"{EXPIRES}[{name}]", str(value)) for name, value in members.items()]
