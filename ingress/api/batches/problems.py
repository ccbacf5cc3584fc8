"""Errors of the batch routes in SiliconFlow's form; a client that asks for the other dialect gets OpenAI's own.

A body that both sides read: its clients look at code, message and data, the OpenAI SDK at error. Four statuses are bare
strings, as that API sends them.
"""

from __future__ import annotations

import orjson
from starlette.responses import Response

from ingress.api.openai_error import error_body
from ingress.http.dialects import ApiProblem

JSON = "application/json"
BAD_PARAMETER, OVERLOADED = 20012, 50505
STRINGS = {
    401: "Invalid token",
    403: "Forbidden",
    404: "404 page not found",
    504: "504 Gateway Timeout",
}
CODES = {503: OVERLOADED}
"""Status → the number that this API gives it; any other refusal is one of a parameter."""


def problem(problem: ApiProblem) -> Response:
    """Render an error; `data` names the member at fault."""
    status = problem.status
    if status in STRINGS:
        body = orjson.dumps(STRINGS[status])
    else:
        both = orjson.loads(error_body(status, problem.message, code=problem.code, param=problem.field))
        code = CODES.get(status, BAD_PARAMETER if status < 500 else status * 100)
        body = orjson.dumps({"code": code, "message": problem.message, "data": problem.field, **both})
    return Response(body, status_code=status, media_type=JSON, headers=dict(problem.headers))
