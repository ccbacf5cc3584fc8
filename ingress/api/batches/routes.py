"""The batches API: create, show, list, cancel, the lines that exist so far, and the callbacks.

A client chooses the dialect of answers by a header: SiliconFlow's or OpenAI's.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from core.deliveries import BATCH_OUTCOMES
from core.errors import InvalidRequest, NotFound, WriteUnconfirmed
from core.settings.callback_policy import callback_policy
from ingress.api.batches import models
from ingress.api.batches.serialization import DIALECTS, Dialect, batch_object, list_object, page_start
from ingress.api.files.models import Range
from ingress.api.files.routes import ranges
from ingress.api.openai import responses as openai
from ingress.api.openai_error import error_body
from ingress.api.tasks.deliveries import delivery_object
from ingress.batches.idempotency import HEADER, create_once
from ingress.batches.request import parse_batch_request
from ingress.batches.service import end_notification
from ingress.connected import Connected
from ingress.files.content import content_response
from ingress.files.lookup import batch_content
from ingress.http.dependencies import AppConnected, AppIngress, LimitedCaller, ReadCaller, SubmitCaller
from ingress.http.errors import ApiProblem, ErrorRenderer
from ingress.http.options import DIALECT, NONE, QUEUE, read_options
from ingress.http.request import idempotency_key, traceparent
from ingress.http.routing import JSON, answer, api_router, error
from ingress.submission.resend import MAX_BODY as RESEND_BODY
from ingress.submission.resend import requested_event, restart_delivery
from schemas.batches import Batch, BatchFile

UNCONFIRMED = {"x-should-retry": "false"}
"""The SDK would send a 503 again by itself, which could be a second batch."""
BAD_PARAMETER, OVERLOADED = 20012, 50505
STRINGS = {
    401: "Invalid token",
    403: "Forbidden",
    404: "404 page not found",
    504: "504 Gateway Timeout",
}
"""Statuses whose errors are bare strings, as SiliconFlow sends them."""
CODES = {503: OVERLOADED}
"""Status → SiliconFlow's error code; other refusals below 500 are BAD_PARAMETER."""

router = api_router("Files and batches")


async def requested_dialect(
    request: Request,
    ingress: AppIngress,
    _given: Annotated[
        str | None,
        Header(
            alias=DIALECT,
            description="Form of the answer; the setting `batches.dialect` unless given.",
            json_schema_extra={"enum": [*DIALECTS]},
        ),
    ] = None,
) -> Dialect:
    """Return the dialect of the answer, a dependency; for errors see requested_renderer."""
    return dialect_of(request, default=ingress.settings.batches.dialect)


AnswerDialect = Annotated[Dialect, Depends(requested_dialect)]
_WRONG = error("A parameter or header is wrong, or the batch is not in the right state.")
_NO_BATCH = error("No such batch, or it belongs to another tenant.")
_LINES = {
    **ranges(
        "Lines of JSON in no order, those that exist so far; an empty body when there is none.",
        "application/jsonl",
        models.LINE,
    ),
    400: _WRONG,
    404: _NO_BATCH,
}
"""Responses of the routes that send the lines of a batch."""


@router.post(
    "/v1/batches",
    operation_id="createBatch",
    summary="Create a batch",
    responses={
        200: answer("Accepted.", models.BatchObject, example=models.CREATED),
        413: error(f"The body is larger than {models.MAX_BODY} bytes."),
        422: error(f"The {HEADER} was used with another body."),
        429: error("The key's rate limit is exceeded; `Retry-After` is set."),
    },
)
async def create_batch(
    dialect: AnswerDialect,
    caller: LimitedCaller,
    body: models.CreateBody,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
    _queue: Annotated[
        str | None,
        Header(
            alias=QUEUE,
            description="Queue of its lines; `batches.queue` unless given.",
            json_schema_extra={"maxLength": 64},
        ),
    ] = None,
    _key: Annotated[
        str | None,
        Header(
            alias=HEADER,
            description="The same key and the same body within 24 h are the same batch.",
            json_schema_extra={"maxLength": 256},
        ),
    ] = None,
) -> Response:
    """The file is checked in the background: its errors are members of the batch.

    Every line then becomes an ordinary offline task of the batch's queue.
    """
    settings = ingress.settings
    options = read_options(request.headers, hold_s=settings.ingress.blocking_timeout_s)
    if options._replace(queue=None) != NONE:
        raise InvalidRequest(f"of the X-Headrace headers only {QUEUE} and {DIALECT} go with a batch", field="headers")
    wanted = parse_batch_request(
        body, short_windows=settings.batches.allow_short_window, callbacks=callback_policy(settings)
    )
    find_input = partial(_input, connected, wanted.input_file_id, owner=caller.owner)
    name, key, trace = options.queue or settings.batches.queue, idempotency_key(request), traceparent(request)
    try:
        if key is not None:
            batch = await create_once(
                settings,
                connected.batch_commands,
                connected.batches,
                wanted,
                find_input,
                key=key,
                owner=caller.owner,
                name=name,
                traceparent=trace,
            )
        else:
            batch = await connected.batch_commands.create(
                wanted, await find_input(), owner=caller.owner, queue=name, traceparent=trace
            )
    except WriteUnconfirmed as unconfirmed:
        refused = renderer_of(dialect)(ApiProblem(unconfirmed.http_status, unconfirmed.code, unconfirmed.message))
        refused.headers.update(UNCONFIRMED)
        return refused
    connected.batches.remember(batch)
    ingress.metrics.answers.labels("batch-create", "", "200").inc()
    return _answer(batch_object(batch, dialect))


@router.get(
    "/v1/batches",
    operation_id="listBatches",
    summary="List batches",
    responses={200: answer("A page.", models.BatchList, example=models.PAGE), 400: _WRONG},
)
async def list_batches(
    dialect: AnswerDialect, caller: ReadCaller, query: models.BatchListParameters, connected: AppConnected
) -> Response:
    """The batches of the tenant, the newest first."""
    connected.batches.check_read()
    found = connected.batches.of(caller.owner)
    begin = page_start(query.after, [batch["id"] for batch in found])
    page = found[begin : begin + query.limit]
    shown = [_listed(connected, batch, dialect) for batch in page]
    return _answer(list_object(shown, has_more=len(found) > begin + query.limit))


@router.get(
    "/v1/batches/{batch_id}",
    operation_id="retrieveBatch",
    summary="Show a batch",
    responses={
        200: answer("The batch.", models.BatchObject, example=models.CREATED),
        400: _WRONG,
        404: _NO_BATCH,
    },
)
async def show_batch(
    dialect: AnswerDialect, caller: ReadCaller, batch_id: models.BatchId, connected: AppConnected
) -> Response:
    """Show a batch."""
    return _answer(batch_object(await connected.batch_service.find(batch_id, owner=caller.owner), dialect))


@router.post(
    "/v1/batches/{batch_id}/cancel",
    operation_id="cancelBatch",
    summary="Cancel a batch",
    responses={
        200: answer("The batch is being cancelled.", models.BatchObject, example=models.CANCELLING),
        400: _WRONG,
        404: _NO_BATCH,
    },
)
async def cancel_batch(
    dialect: AnswerDialect, caller: SubmitCaller, batch_id: models.BatchId, connected: AppConnected
) -> Response:
    """No further line runs, running calls are closed, and lines that did not run get the error batch_cancelled.

    Another cancel changes nothing; 400 when the batch has ended in another way.
    """
    return _answer(batch_object(await connected.batch_service.cancel(batch_id, owner=caller.owner), dialect))


@router.get(
    "/v1/batches/{batch_id}/output",
    operation_id="downloadBatchOutput",
    summary="Download the output of a batch",
    responses=_LINES,
)
async def download_output(
    dialect: AnswerDialect,
    caller: ReadCaller,
    batch_id: models.BatchId,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
    _range: Range = None,
) -> Response:
    """The answers to the lines that succeeded, also while the batch runs: the content of its output file."""
    return await _content(request, dialect, ingress, connected, batch_id, caller.owner, errors=False)


@router.get(
    "/v1/batches/{batch_id}/errors",
    operation_id="downloadBatchErrors",
    summary="Download the errors of a batch",
    responses=_LINES,
)
async def download_errors(
    dialect: AnswerDialect,
    caller: ReadCaller,
    batch_id: models.BatchId,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
    _range: Range = None,
) -> Response:
    """The lines that failed, also while the batch runs: the content of its error file."""
    return await _content(request, dialect, ingress, connected, batch_id, caller.owner, errors=True)


@router.get(
    "/v1/batches/{batch_id}/deliveries",
    operation_id="listBatchDeliveries",
    summary="List the callbacks of a batch",
    responses={
        200: answer(
            "The callbacks; none before the first attempt is over.",
            models.BatchDeliveryList,
            example=models.DELIVERIES,
        ),
        400: _WRONG,
        404: _NO_BATCH,
    },
)
async def list_batch_deliveries(
    _: AnswerDialect, caller: ReadCaller, batch_id: models.BatchId, connected: AppConnected
) -> Response:
    """Callbacks are sent at the end only: every attempt, and when the next one is due; retained for eight days."""
    batch = await connected.batch_service.find(batch_id, owner=caller.owner)
    data = [delivery_object(one) for one in connected.deliveries.of(batch["id"])]
    return _answer({"object": "list", "batch_id": batch["id"], "data": data})


@router.post(
    "/v1/batches/{batch_id}/deliveries/resend",
    operation_id="resendBatchDelivery",
    summary="Send the callback of a batch again",
    responses={
        202: answer("The callback, which is now pending.", models.BatchDeliveryList, example=models.DELIVERIES),
        400: _WRONG,
        404: _NO_BATCH,
        413: error(f"The body is larger than {RESEND_BODY} bytes."),
    },
)
async def resend_batch_delivery(
    _: AnswerDialect,
    caller: SubmitCaller,
    batch_id: models.BatchId,
    body: models.ResendBody,
    ingress: AppIngress,
    connected: AppConnected,
) -> Response:
    """A new round at once, with all its attempts, even to a URL that has answered 410.

    400 when the batch has not ended, has no callback_url, or its callback is older than eight days.
    """
    event = requested_event(body, BATCH_OUTCOMES)
    batch = await connected.batch_service.find(batch_id, owner=caller.owner)
    ended = end_notification(batch, connected.deliveries.of(batch["id"]), event)
    delivery = await restart_delivery(ingress.settings, connected.producer, connected.deliveries, ended)
    return _answer({"object": "list", "batch_id": batch["id"], "data": [delivery_object(delivery)]}, status=202)


def problem(problem: ApiProblem) -> Response:
    """Render an error in SiliconFlow's form, which OpenAI's clients can read, too; `data` names the wrong member."""
    status = problem.status
    if status in STRINGS:
        body = orjson.dumps(STRINGS[status])
    else:
        both = orjson.loads(error_body(status, problem.message, code=problem.code, param=problem.field))
        code = CODES.get(status, BAD_PARAMETER if status < 500 else status * 100)
        body = orjson.dumps({"code": code, "message": problem.message, "data": problem.field, **both})
    return Response(body, status_code=status, media_type=JSON, headers=dict(problem.headers))


def renderer_of(dialect: Dialect) -> ErrorRenderer:
    """Return what renders errors in a dialect."""
    return openai.problem if dialect == "openai" else problem


def dialect_of(request: Request, *, default: Dialect) -> Dialect:
    """Return the dialect that a request asks for; raises InvalidRequest."""
    given = request.headers.getlist(DIALECT)
    if not given:
        return default
    for dialect in DIALECTS:
        if [text.strip().lower() for text in given] == [dialect]:
            return dialect
    raise InvalidRequest(f"{DIALECT} must be {' or '.join(DIALECTS)}, given once", field=DIALECT)


def requested_renderer(request: Request, *, default: Dialect) -> ErrorRenderer | None:
    """Return what renders errors below /v1/batches, also where there is no route; None for all other paths."""
    if not f"{request.url.path}/".startswith("/v1/batches/"):
        return None
    with suppress(InvalidRequest):
        return renderer_of(dialect_of(request, default=default))
    return renderer_of(default)  # the header names no dialect


def _listed(connected: Connected, batch: Batch, dialect: Dialect) -> dict[str, Any]:
    """Build an entry of the list; SiliconFlow's has the name of the file, too."""
    entry = batch_object(batch, dialect)
    if dialect == "siliconflow":
        file = connected.files.get(batch["input_file_id"], owner=batch["owner"])
        entry["file_name"] = None if file is None else file["filename"]
    return entry


async def _content(
    request: Request,
    dialect: Dialect,
    ingress: AppIngress,
    connected: Connected,
    batch_id: str,
    owner: str,
    *,
    errors: bool,
) -> Response:
    batch = await connected.batch_service.find(batch_id, owner=owner)
    content = batch_content(batch, errors=errors)
    if content.size and connected.file_lookup.of_batch(batch, errors=errors) is None:
        raise NotFound(f"the output of {batch['id']} has expired")
    return await content_response(request, ingress.blobs, content, refuse=renderer_of(dialect))


async def _input(connected: Connected, file_id: str, *, owner: str) -> BatchFile:
    """Return the file of a batch's requests; raises InvalidRequest for any other file."""
    file = await connected.files.find(file_id, owner=owner)
    if file is None:
        raise InvalidRequest(f"input_file_id {file_id} names no file of yours", field="input_file_id")
    if file["purpose"] != "batch":
        raise InvalidRequest(
            f"input_file_id {file_id} was uploaded for {file['purpose']}; its purpose must be batch",
            field="input_file_id",
        )
    return file


def _answer(body: object, *, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type=JSON, headers={"cache-control": "no-store"})
