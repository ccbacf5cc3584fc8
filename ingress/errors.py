"""How errors become answers, in the envelope of the dialect that the path belongs to."""

from __future__ import annotations

import logging
import math

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from core.errors import HeadraceError, RequestError, Unavailable, Unconfirmed
from ingress.api.bella import envelope

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Nobody reads this answer; the number, well known from nginx, keeps it apart in counters."""


def install(app: FastAPI) -> None:
    """Put the handlers in place."""
    app.add_exception_handler(HeadraceError, _ours)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)  # noqa: S101 - registered for this class
    headers: dict[str, str] = {}
    if error.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.http_status == 413:
        headers["connection"] = "close"  # the rest of the body is not read
    retry_after_s = error.retry_after_s if isinstance(error, RequestError | Unavailable) else None
    if retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(retry_after_s))
    if isinstance(error, Unconfirmed) and error.task_id is not None:
        headers["x-task-id"] = error.task_id
    if not isinstance(error, RequestError | Unavailable):
        log.error("a request failed: %s", error, extra={"event": "request_failed", "code": error.code})
    field = error.field if isinstance(error, RequestError) else None
    return envelope(error.http_status, error.message, field=field, headers=headers)


async def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    message = {
        404: f"there is no {request.url.path}; see /docs",
        405: f"{request.method} is not possible on {request.url.path}; see /docs",
    }.get(error.status_code, str(error.detail))
    return envelope(error.status_code, message, headers=dict(error.headers or {}))


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _unexpected(_: Request, __: Exception) -> Response:
    """Answer; the server logs the error with its trace afterwards."""
    return envelope(500, "an unexpected error occurred; the log of this process has the details")
