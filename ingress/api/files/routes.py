"""The routes of files: upload, list, look, content and delete."""

from __future__ import annotations

from contextlib import suppress

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import InvalidRequest, Unavailable, WriteUnconfirmed
from ingress.api.batches.routes import position, read_page
from ingress.api.batches.serialization import list_object
from ingress.api.files.serialization import deleted_object, file_object
from ingress.api.openai.responses import problem
from ingress.files.content import content_answer
from ingress.files.lookup import OUTPUT, Entry, of_upload
from ingress.files.upload import PURPOSES, receive_file
from ingress.http.methods import route
from ingress.runtime import Ingress

JSON = "application/json"
LIMIT = 10_000
NAMES = ("after", "limit", "order", "purpose")


class FileRoutes:
    """Files of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            route("/v1/files", POST=self.upload, GET=self.list),
            route("/v1/files/{file_id}", GET=self.get, DELETE=self.delete),
            route("/v1/files/{file_id}/content", GET=self.content),
        ]

    async def upload(self, request: Request) -> Response:
        """Store a file."""
        ingress = self._ingress
        caller = ingress.keys.caller(request, scope="submit")
        ingress.limits.submit(caller, request.scope)
        connected = ingress.connected()  # before the file is received: it could not be recorded
        most = ingress.settings.batches.max_bytes
        file = await receive_file(request, ingress.blobs, owner=caller.owner, most_bytes=most)
        try:
            await connected.files.add(connected.producer, file)
        except WriteUnconfirmed:  # it may be there, and then it needs its bytes; else they are swept away
            raise
        except Unavailable:
            with suppress(Unavailable):
                await ingress.blobs.delete(file["blob"])
            raise
        ingress.metrics.answers.labels("file-upload", "", "200").inc()
        return _answer(file_object(of_upload(file)))

    async def list(self, request: Request) -> Response:
        """List the caller's files, the newest first unless it is asked otherwise."""
        owner = self._ingress.keys.caller(request, scope="read").owner
        after, limit = read_page(request, names=NAMES, default=LIMIT, most=LIMIT)
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order must be asc or desc", field="order")
        purpose = request.query_params.get("purpose")
        if purpose is not None and purpose not in (*PURPOSES, OUTPUT):
            raise InvalidRequest(f"purpose must be one of {', '.join((*PURPOSES, OUTPUT))}", field="purpose")
        connected = self._ingress.connected()
        connected.files.check_read()
        connected.batches.check_read()
        found = connected.file_lookup.all(owner=owner, purpose=purpose)
        found.sort(key=lambda entry: (entry.created_ms, entry.id), reverse=order == "desc")
        begin = position(after, [entry.id for entry in found])
        page = found[begin : begin + limit]
        return _answer(list_object([file_object(entry) for entry in page], has_more=len(found) > begin + limit))

    async def get(self, request: Request) -> Response:
        """Show a file."""
        return _answer(file_object(await self._find(request)))

    async def content(self, request: Request) -> Response:
        """Send the bytes of a file, or a range of them."""
        entry = await self._find(request)
        return await content_answer(request, self._ingress.blobs, entry.content, refuse=problem)

    async def delete(self, request: Request) -> Response:
        """Remove a file that no batch needs any more."""
        owner = self._ingress.keys.caller(request, scope="submit").owner
        connected = self._ingress.connected()
        entry = await connected.file_lookup.find(request.path_params["file_id"], owner=owner)
        if entry.uploaded is None:
            raise InvalidRequest(f"file {entry.id} belongs to {entry.batch_id} and goes with it", field="file_id")
        if (user := await connected.batch_service.user_of(entry.id)) is not None:
            raise InvalidRequest(f"file {entry.id} is in use by {user}, which has not ended", field="file_id")
        await connected.files.remove(connected.producer, entry.uploaded)
        with suppress(Unavailable):  # what cannot be removed now is swept away later
            await self._ingress.blobs.delete(entry.uploaded["blob"])
        return _answer(deleted_object(entry.id))

    async def _find(self, request: Request) -> Entry:
        owner = self._ingress.keys.caller(request, scope="read").owner
        return await self._ingress.connected().file_lookup.find(request.path_params["file_id"], owner=owner)


def _answer(body: object) -> Response:
    return Response(orjson.dumps(body), media_type=JSON, headers={"cache-control": "no-store"})
