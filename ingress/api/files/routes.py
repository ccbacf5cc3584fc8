"""The files API: upload, list, show, download and delete."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from core.errors import InvalidRequest, Unavailable, WriteUnconfirmed
from ingress.api.batches.serialization import list_object, page_start
from ingress.api.files import models
from ingress.api.openai.responses import problem
from ingress.files.content import content_response
from ingress.files.lookup import OUTPUT, FileEntry, of_upload
from ingress.files.upload import PURPOSES, receive_file
from ingress.http.dependencies import AppConnected, AppIngress, LimitedCaller, ReadCaller, SubmitCaller
from ingress.http.routing import JSON, Responses, answer, api_router, error, with_example

router = api_router("Files and batches")
_NO_FILE = error("No such file, or it belongs to another tenant.")
UNSATISFIABLE = error("The file has no bytes in that range.")


def ranges(description: str, media_type: str, example: object) -> Responses:
    """Describe the answers with the content of a file, whole or a range of it."""
    content = {media_type: {"schema": {"type": "string"}, **with_example(example)}}
    return {
        200: {"description": description, "content": content},
        206: {"description": "The requested range.", "content": content},
        416: UNSATISFIABLE,
    }


@router.post(
    "/v1/files",
    operation_id="uploadFile",
    summary="Upload a file",
    responses={
        200: answer("The file.", models.FileObject, example=models.FILE),
        400: error("A field of the form is missing or wrong; `param` names it."),
        413: error("The file is larger than batches.max_bytes."),
        415: error("The body is not a form."),
        429: error("The key's rate limit is exceeded; `Retry-After` is set."),
    },
)
async def upload_file(
    caller: LimitedCaller, ingress: AppIngress, connected: AppConnected, _form: models.UploadForm, request: Request
) -> Response:
    """Stored while it arrives; never held in memory as a whole. The file can be used as soon as this has answered."""
    most = ingress.settings.batches.max_bytes
    file = await receive_file(request, ingress.blobs, owner=caller.owner, most_bytes=most)
    try:
        await connected.files.add(connected.producer, file)
    except WriteUnconfirmed:  # the record may exist, and then it needs the bytes; else the sweeper removes them
        raise
    except Unavailable:
        with suppress(Unavailable):
            await ingress.blobs.delete(file["blob"])
        raise
    ingress.metrics.answers.labels("file-upload", "", "200").inc()
    return _answer(file_object(of_upload(file)))


@router.get(
    "/v1/files",
    operation_id="listFiles",
    summary="List files",
    responses={
        200: answer("A page.", models.FileList, example=models.PAGE),
        400: error("A parameter is wrong; `param` names it."),
    },
)
async def list_files(caller: ReadCaller, query: models.FileListParameters, connected: AppConnected) -> Response:
    """The files of the tenant, with the output and error files of its batches."""
    if query.order not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc", field="order")
    if query.purpose is not None and query.purpose not in (*PURPOSES, OUTPUT):
        raise InvalidRequest(f"purpose must be one of {', '.join((*PURPOSES, OUTPUT))}", field="purpose")
    connected.files.check_read()
    connected.batches.check_read()
    found = connected.file_lookup.all(owner=caller.owner, purpose=query.purpose)
    found.sort(key=lambda entry: (entry.created_ms, entry.id), reverse=query.order == "desc")
    begin = page_start(query.after, [entry.id for entry in found])
    page = found[begin : begin + query.limit]
    return _answer(list_object([file_object(entry) for entry in page], has_more=len(found) > begin + query.limit))


@router.get(
    "/v1/files/{file_id}",
    operation_id="retrieveFile",
    summary="Show a file",
    responses={200: answer("The file.", models.FileObject, example=models.FILE), 404: _NO_FILE},
)
async def show_file(caller: ReadCaller, file_id: models.FileId, connected: AppConnected) -> Response:
    """Show a file."""
    return _answer(file_object(await connected.file_lookup.find(file_id, owner=caller.owner)))


@router.delete(
    "/v1/files/{file_id}",
    operation_id="deleteFile",
    summary="Delete a file",
    responses={
        200: answer("The file is deleted.", models.DeletedFile, example=models.DELETED),
        400: error("The file is in use, or belongs to a batch."),
        404: _NO_FILE,
    },
)
async def delete_file(
    caller: SubmitCaller, file_id: models.FileId, ingress: AppIngress, connected: AppConnected
) -> Response:
    """Not while a batch that has not ended needs it: 400, naming the batch."""
    entry = await connected.file_lookup.find(file_id, owner=caller.owner)
    if entry.uploaded is None:
        raise InvalidRequest(f"file {entry.id} belongs to {entry.batch_id} and goes with it", field="file_id")
    if (user := await connected.batch_service.user_of(entry.id)) is not None:
        raise InvalidRequest(f"file {entry.id} is in use by {user}, which has not ended", field="file_id")
    await connected.files.remove(connected.producer, entry.uploaded)
    with suppress(Unavailable):  # the sweeper removes later what cannot be removed now
        await ingress.blobs.delete(entry.uploaded["blob"])
    return _answer({"id": entry.id, "object": "file", "deleted": True})


@router.get(
    "/v1/files/{file_id}/content",
    operation_id="downloadFile",
    summary="Download the content of a file",
    responses={
        **ranges(
            "The bytes as they were uploaded; of a file of a batch all lines that exist so far.",
            "application/octet-stream",
            models.LINES,
        ),
        404: _NO_FILE,
    },
)
async def download_file(
    caller: ReadCaller,
    file_id: models.FileId,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
    _range: models.Range = None,
) -> Response:
    """Download the content of a file, or a range of it."""
    entry = await connected.file_lookup.find(file_id, owner=caller.owner)
    return await content_response(request, ingress.blobs, entry.content, refuse=problem)


def file_object(entry: FileEntry) -> dict[str, Any]:
    """Build the file object, which is OpenAI's in every dialect of batches."""
    return {
        "id": entry.id,
        "object": "file",
        "bytes": entry.content.size,
        "created_at": entry.created_ms // 1000,
        "expires_at": None if entry.expires_ms is None else entry.expires_ms // 1000,
        "filename": entry.filename,
        "purpose": entry.purpose,
        "status": "processed",
        "status_details": None,
    }


def _answer(body: object) -> Response:
    return Response(orjson.dumps(body), media_type=JSON, headers={"cache-control": "no-store"})
