"""How errors become responses: an ApiProblem, rendered in the dialect of the API that the path belongs to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import HeadraceError, RequestError, Unavailable
from ingress.http.responses import DrainingResponse

log = logging.getLogger(__name__)


class ApiProblem(NamedTuple):
    """An error before it has a form."""

    status: int
    code: str
    """Machine-readable, such as not_found."""
    message: str
    field: str | None = None
    """The member, header or parameter that is wrong."""
    task_id: str | None = None
    headers: Mapping[str, str] = {}


class ErrorRenderer(Protocol):
    """Gives an error the form of one dialect."""

    def __call__(self, problem: ApiProblem) -> Response:
        """Build the answer."""


Chooser = Callable[[Request], ErrorRenderer | None]
"""Finds the renderer where clients choose their dialect by a header; None below all other paths."""


class Dialects:
    """Renderers by path; the longest prefix of whole segments wins."""

    def __init__(self, default: ErrorRenderer, by_prefix: Mapping[str, ErrorRenderer]) -> None:
        self._default = default
        self._by_prefix = sorted(by_prefix.items(), key=lambda item: -len(item[0]))

    def of(self, path: str) -> ErrorRenderer:
        """Return the renderer for a path."""
        for prefix, renderer in self._by_prefix:
            if path == prefix or path.startswith(f"{prefix}/"):
                return renderer
        return self._default


CLIENT_GONE = 499
"""The client has disconnected, so the answer is not read; the number, known from nginx, separates it in counters."""


def install(app: FastAPI, dialects: Dialects, *, choose: Chooser) -> None:
    """Put the handlers in place; `choose` comes before the path, also where no route is."""

    def renderer(request: Request) -> ErrorRenderer:
        return choose(request) or dialects.of(request.url.path)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, HeadraceError)  # noqa: S101 - registered for this class
        if not isinstance(error, RequestError | Unavailable):
            log.error("a request failed: %s", error, extra={"event": "request_failed", "code": error.code})
        response = renderer(request)(problem_of(error))
        return DrainingResponse(response) if error.http_status == 413 else response

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
        path = request.url.path
        code, message = {
            404: ("not_found", f"there is no {path}; see /docs"),
            405: ("method_not_allowed", f"{request.method} is not possible on {path}; see /docs"),
        }.get(error.status_code, ("invalid_request", str(error.detail)))
        headers = {"allow": allowed(app, path)} if error.status_code == 405 else dict(error.headers or {})
        problem = ApiProblem(error.status_code, code, message, headers=headers)
        return renderer(request)(problem)

    async def unexpected(request: Request, _: Exception) -> Response:
        """Answer; the server logs the error with its trace afterwards."""
        message = "an unexpected error occurred; the log of this process has the details"
        return renderer(request)(ApiProblem(500, HeadraceError.code, message))

    app.add_exception_handler(HeadraceError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, unexpected)


def allowed(app: FastAPI, path: str) -> str:
    """List the methods of a path: those of the first route that fits, and of others that are declared for the same."""
    fitting = [one for one in app.router.routes if isinstance(one, Route) and one.path_regex.match(path)]
    return ", ".join(sorted({method for one in fitting if one.path == fitting[0].path for method in one.methods or ()}))


def problem_of(error: HeadraceError) -> ApiProblem:
    """Describe an error of ours, with the headers that every dialect sends."""
    headers: dict[str, str] = {}
    if error.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.http_status == 413:
        headers["connection"] = "close"  # the rest of the body is not read
    retry_after_s = error.retry_after_s if isinstance(error, RequestError | Unavailable) else None
    if retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(retry_after_s))
    if error.task_id is not None:
        headers["x-task-id"] = error.task_id
    field = error.field if isinstance(error, RequestError) else None
    return ApiProblem(error.http_status, error.code, error.message, field, error.task_id, headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
