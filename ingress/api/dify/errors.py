"""Errors in the form of this dialect: code, message, status."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from core.errors import RequestError
from ingress.http.errors import ApiProblem

JSON = "application/json"
CODES = {
    "invalid_request": "invalid_param",
    "too_large": "file_too_large",
}
"""Our codes → this dialect's; the others are the same or have no equivalent."""
PATHS = tuple(
    prefix + path
    for prefix in ("", "/v1")
    for path in ("/completion-messages", "/files/upload", "/messages", "/parameters", "/info", "/meta")
)
"""The paths of this dialect."""
CHALLENGE = 'Bearer realm="api"'


class DifyError(RequestError):
    """The request is refused with a code that only this dialect has."""

    def __init__(self, message: str, *, code: str, status: int = 400, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.code = code
        self.http_status = status


def problem(problem: ApiProblem) -> Response:
    """Render an error; `params` names the wrong member."""
    members: dict[str, object] = {
        "code": "internal_server_error" if problem.status == 500 else CODES.get(problem.code, problem.code),
        "message": problem.message,
        "status": problem.status,
    }
    if problem.field is not None:
        members["params"] = problem.field
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["www-authenticate"] = CHALLENGE
    return Response(orjson.dumps(members), status_code=problem.status, media_type=JSON, headers=headers)
