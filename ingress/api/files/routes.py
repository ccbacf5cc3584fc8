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
from ingress.batches.service import user_of
from ingress.files.content import content_answer
from ingress.files.lookup import OUTPUT, Entry, all_files, find_file, of_upload
from ingress.files.upload import PURPOSES, receive_file
from ingress.http.methods import route
from ingress.runtime import Services

JSON = "application/json"
LIMIT = 10_000
NAMES = ("after", "limit", "order", "purpose")


class FileRoutes:
    """Files over one set of services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            route("/v1/files", POST=self.upload, GET=self.list),
            route("/v1/files/{file_id}", GET=self.get, DELETE=self.delete),
            route("/v1/files/{file_id}/content", GET=self.content),
        ]

    async def upload(self, request: Request) -> Response:
        """Store a file."""
        services = self._services
        caller = services.keys.caller(request, scope="submit")
        services.limits.submit(caller, request.scope)
        _ = services.batch_writer  # nothing is received that could not be written down
        most = services.settings.batches.max_bytes
        file = await receive_file(request, services.blobs, owner=caller.owner, most_bytes=most)
        try:
            await services.files.add(services.producer, file)
        except WriteUnconfirmed:  # it may be there, and then it needs its bytes; else they are swept away
            raise
        except Unavailable:
            with suppress(Unavailable):
                await services.blobs.delete(file["blob"])
            raise
        services.metrics.answers.labels("file-upload", "", "200").inc()
        return _answer(file_object(of_upload(file)))

    async def list(self, request: Request) -> Response:
        """List the caller's files, the newest first unless it is asked otherwise."""
        owner = self._services.keys.caller(request, scope="read").owner
        after, limit = read_page(request, names=NAMES, default=LIMIT, most=LIMIT)
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequest("order must be asc or desc", field="order")
        purpose = request.query_params.get("purpose")
        if purpose is not None and purpose not in (*PURPOSES, OUTPUT):
            raise InvalidRequest(f"purpose must be one of {', '.join((*PURPOSES, OUTPUT))}", field="purpose")
        self._services.files.check_read()
        self._services.batches.check_read()
        found = all_files(self._services, owner=owner, purpose=purpose)
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
        return await content_answer(request, self._services.blobs, entry.content, refuse=problem)

    async def delete(self, request: Request) -> Response:
        """Remove a file that no batch needs any more."""
        services = self._services
        owner = services.keys.caller(request, scope="submit").owner
        entry = await find_file(services, request.path_params["file_id"], owner=owner)
        if entry.uploaded is None:
            raise InvalidRequest(f"file {entry.id} belongs to {entry.batch_id} and goes with it", field="file_id")
        if (user := await user_of(services, entry.id)) is not None:
            raise InvalidRequest(f"file {entry.id} is in use by {user}, which has not ended", field="file_id")
        await services.files.remove(services.producer, entry.uploaded)
        with suppress(Unavailable):  # what cannot be removed now is swept away later
            await services.blobs.delete(entry.uploaded["blob"])
        return _answer(deleted_object(entry.id))

    async def _find(self, request: Request) -> Entry:
        owner = self._services.keys.caller(request, scope="read").owner
        return await find_file(self._services, request.path_params["file_id"], owner=owner)


def _answer(body: object) -> Response:
    return Response(orjson.dumps(body), media_type=JSON, headers={"cache-control": "no-store"})
