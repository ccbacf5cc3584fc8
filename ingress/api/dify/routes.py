"""The Dify-compatible API: completion messages, files, feedback, and what a client asks about its application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import orjson
from fastapi import Depends
from fastapi.params import Depends as Dependency
from starlette.requests import Request
from starlette.responses import Response

from core.clock import epoch_ms
from core.errors import InvalidRequest, NotFound
from core.settings.models import DifySettings, QueueSettings
from ingress.api.dify import models
from ingress.api.dify.completion import Completions
from ingress.api.dify.files import DifyUploads, file_object
from ingress.api.dify.prompt import QUERY, variables
from ingress.api.dify.request import read_user
from ingress.http.dependencies import (
    SUBMITS,
    AppConnected,
    AppIngress,
    LimitedCaller,
    PerApp,
    ReadCaller,
    SubmitCaller,
)
from ingress.http.options import read_options
from ingress.http.request import json_object
from ingress.http.routing import JSON, RawRoute, Responses, answer, api_router, error, with_example
from ingress.http.sse import MEDIA_TYPE as EVENT_STREAM
from ingress.runtime import Ingress
from schemas import ids
from schemas.records import TERMINAL

SUCCESS = b'{"result":"success"}'
RATINGS = ("like", "dislike", None)
PREFIXES = {"": "", "/v1": "V1"}
"""Prefix of the paths → suffix of the operation ids."""
OFF = {"enabled": False}
MB = 1_048_576
TAG = "Dify-compatible API"
completion_router = api_router(TAG, route_class=RawRoute)
router = api_router(TAG)


def _uploads(ingress: Ingress) -> DifyUploads:
    return DifyUploads(ingress.settings, ingress.blobs)


def _completions(ingress: Ingress) -> Completions:
    return Completions(ingress, _uploads(ingress))


COMPLETIONS = PerApp(_completions)
Uploads = Annotated[DifyUploads, Depends(PerApp(_uploads))]


async def _queue(_: ReadCaller, request: Request, ingress: AppIngress, _queue: models.QueueHeader = None) -> str:
    settings = ingress.settings.ingress
    return read_options(request.headers, hold_s=settings.blocking_timeout_s).queue or settings.default_queue


QueueOfApp = Annotated[str, Depends(_queue)]
"""The queue whose application a client asks about."""


async def create_message(request: Request) -> Response:
    """The prompt is inputs.query, else query; if the queue has `prompt` in its settings, inputs fill that template.

    The model is the queue's `model`, else the first that the upstreams list. A stream has events message, message_end
    and error, `event: ping` every 10 s, and no [DONE].
    """
    return await COMPLETIONS.of(request).create(request)


async def stop_message(
    caller: SubmitCaller, task_id: models.StreamId, body: models.StopBody, ingress: AppIngress, connected: AppConnected
) -> Response:
    """Works for the user who started the stream, from any ingress.

    The stream then ends with message_end and the usage of the text so far. Any other task is not affected, and the
    answer is the same.
    """
    user = read_user(json_object(body).get("user"), require=ingress.settings.ingress.require_user)
    try:
        reading = await connected.task_lookup.find_state(task_id, owner=caller.owner)
    except NotFound:
        return Response(SUCCESS, media_type=JSON)
    if reading.user == user and reading.mode == "streaming" and reading.state not in TERMINAL:
        await connected.submitter.cancel(ids.parse(reading.id), owner=caller.owner, reason="stopped by its user")
    return Response(SUCCESS, media_type=JSON)


async def upload_file(
    caller: LimitedCaller, uploads: Uploads, _form: models.UploadForm, request: Request, ingress: AppIngress
) -> Response:
    """Only the same user may use it, for `dify.upload_retention_s`. Limits: `dify.max_*_bytes`."""
    upload = await uploads.keep(request, owner=caller.owner)
    ingress.metrics.answers.labels("files/upload", "blocking", "201").inc()
    return Response(orjson.dumps(file_object(upload)), status_code=201, media_type=JSON)


async def rate_message(
    caller: LimitedCaller,
    message_id: models.MessageId,
    body: models.FeedbackBody,
    ingress: AppIngress,
    connected: AppConnected,
) -> Response:
    """Stored in the object store as feedbacks/TASK-….json; a later rating replaces an earlier one."""
    members = json_object(body)
    user = read_user(members.get("user"), require=ingress.settings.ingress.require_user)
    rating, content = members.get("rating"), members.get("content")
    if rating not in RATINGS:
        raise InvalidRequest("rating must be like, dislike or null", field="rating")
    if content is not None and not isinstance(content, str):
        raise InvalidRequest("content must be a string", field="content")
    reading = await connected.task_lookup.find_state(message_id, owner=caller.owner)
    if reading.user != user:
        raise NotFound("there is no such message of this user")
    feedback = {
        "task_id": reading.id,
        "user": user,
        "rating": rating,
        "content": content,
        "at_ms": epoch_ms(),
    }
    await ingress.blobs.put(orjson.dumps(feedback), name=f"feedbacks/{reading.id}.json", media_type=JSON)
    return Response(SUCCESS, media_type=JSON)


async def show_parameters(queue: QueueOfApp, ingress: AppIngress) -> Response:
    """The inputs that the prompt of the queue has, and the limits of uploads."""
    settings = ingress.settings
    body = app_parameters(settings.queues.get(queue, QueueSettings()), settings.dify)
    return Response(orjson.dumps(body), media_type=JSON)


async def show_info(queue: QueueOfApp) -> Response:
    """The name is that of the queue."""
    return Response(orjson.dumps(app_info(queue)), media_type=JSON)


async def show_meta(_: QueueOfApp) -> Response:
    """There are no tools."""
    return Response(orjson.dumps(app_meta()), media_type=JSON)


def app_parameters(queue: QueueSettings, dify: DifySettings) -> dict[str, Any]:
    """Return the inputs of the application, and the limits of uploads."""
    names = variables(queue.prompt) if queue.prompt is not None else [QUERY]
    form = [{"paragraph": {"label": n, "variable": n, "required": True, "default": ""}} for n in names or [QUERY]]
    return {
        "opening_statement": "",
        "suggested_questions": [],
        "suggested_questions_after_answer": OFF,
        "speech_to_text": OFF,
        "text_to_speech": {**OFF, "voice": "", "language": "", "autoPlay": "disabled"},
        "retriever_resource": OFF,
        "annotation_reply": OFF,
        "more_like_this": OFF,
        "sensitive_word_avoidance": OFF,
        "user_input_form": form,
        "file_upload": {
            "image": {
                "enabled": True,
                "number_limits": dify.max_files_per_request,
                "detail": "high",
                "transfer_methods": ["remote_url", "local_file"],
            }
        },
        "system_parameters": {
            "file_size_limit": dify.max_other_bytes // MB,
            "image_file_size_limit": dify.max_image_bytes // MB,
            "audio_file_size_limit": dify.max_audio_bytes // MB,
            "video_file_size_limit": dify.max_video_bytes // MB,
            "workflow_file_upload_limit": dify.max_files_per_request,
        },
    }


def app_info(queue: str) -> dict[str, Any]:
    """Return the application of a queue; its name is that of the queue."""
    return {"name": queue, "description": "", "tags": [], "mode": "completion", "author_name": ""}


def app_meta() -> dict[str, Any]:
    """Return the icons of tools: there are no tools."""
    return {"tool_icons": {}}


_SUCCESS: Responses = {200: answer("Done.", models.Success, example={"result": "success"})}
_MESSAGE: Responses = {
    200: {
        "description": "The answer, or its stream.",
        "model": models.DifyMessage,
        "content": {JSON: with_example(models.ANSWER), EVENT_STREAM: with_example(models.EVENTS)},
    },
    400: models.WRONG_FIELD,
    410: error("The first task with this Idempotency-Key has ended and its result is deleted."),
    413: models.TOO_LARGE,
    422: error("The Idempotency-Key was used for another request."),
}
_FILE: Responses = {
    201: answer("The file.", models.UploadedFile, example=models.FILE),
    400: models.WRONG_FIELD,
    413: models.TOO_LARGE,
    415: models.BAD_TYPE,
    429: models.RATE_LIMITED,
}
_WRONG: Responses = {400: error("A header is wrong.")}
_PARAMETERS: Responses = {
    200: answer("Inputs and limits.", example=app_parameters(QueueSettings(), DifySettings())),
    **_WRONG,
}


def _declare(
    path: str,
    endpoint: Callable[..., Awaitable[Response]],
    method: str,
    summary: str,
    responses: Responses,
    dependencies: Sequence[Dependency] = (),
) -> None:
    """Declare a route with and without /v1."""
    used = completion_router if endpoint is create_message else router
    for prefix, suffix in PREFIXES.items():
        options: dict[str, Any] = {"dependencies": dependencies, "responses": responses, "summary": summary}
        operation_id = f"dify_{endpoint.__name__}{suffix}"
        used.add_api_route(prefix + path, endpoint, methods=[method], operation_id=operation_id, **options)


_declare(
    "/completion-messages",
    create_message,
    "POST",
    "Complete a prompt",
    _MESSAGE,
    [SUBMITS, Depends(models.completion_request)],
)
_declare("/completion-messages/{task_id}/stop", stop_message, "POST", "Stop a stream", _SUCCESS)
_declare("/files/upload", upload_file, "POST", "Upload a file for completion-messages", _FILE)
_declare(
    "/messages/{message_id}/feedbacks",
    rate_message,
    "POST",
    "Rate an answer",
    {**_SUCCESS, 404: models.NO_MESSAGE, 429: models.RATE_LIMITED},
)
_declare("/parameters", show_parameters, "GET", "Show the inputs and limits of a queue", _PARAMETERS)
_declare(
    "/info",
    show_info,
    "GET",
    "Show the name of a queue's application",
    {200: answer("The application.", models.AppInfo, example=app_info("default")), **_WRONG},
)
_declare(
    "/meta",
    show_meta,
    "GET",
    "List the tools of a queue's application: none",
    {200: answer("The tools.", models.AppMeta, example=app_meta()), **_WRONG},
)
