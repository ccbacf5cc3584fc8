"""What every operation has in common, added to what its door says: the scope of its key, and the errors of its dialect.

The bodies of the examples are made by the code that answers.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ingress.dialects import Problem
from ingress.doors import DIALECTS
from ingress.keys.entry import Scope
from ingress.limits import Quota

AT_MS = 1_769_860_800_000
QUOTA_HEADERS = [name.decode() for name, _ in Quota(60, 0, 60).headers()]


class Refusal(NamedTuple):
    """An error that any route of a kind may answer with."""

    status: int
    code: str
    description: str
    message: str
    headers: tuple[str, ...] = ()


UNAUTHORIZED = Refusal(
    401, "unauthorized", "The key is missing, not known, disabled or expired.", "the API key is not known",
    ("www-authenticate",),
)  # fmt: skip
FORBIDDEN = Refusal(
    403, "forbidden", "The key lacks the scope.", "this needs a key with the scope {scope}; yours has none of it"
)
TOO_MANY = Refusal(
    429, "too_many_requests", "The key has used its requests of this minute, or holds as many as it may at once.",
    "this key may submit 60 requests per minute; nothing was accepted, try again in 1 s",
    ("retry-after", *QUOTA_HEADERS),
)  # fmt: skip
UNAVAILABLE = Refusal(
    503, "unavailable", "Kafka cannot be reached, or too many requests are held; nothing was accepted.",
    "Kafka cannot be reached now; nothing was accepted, try again in some seconds", ("retry-after",),
)  # fmt: skip


def completed(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with its scope and with the errors that its door has not described."""
    if operation.get("security") == []:
        return operation
    scope: Scope = "read" if method == "get" else "submit"
    security = operation.get("security", [{"key": [scope]}])
    [needed] = security[0]["key"]
    refusals = (UNAUTHORIZED, FORBIDDEN, *((TOO_MANY,) if needed == "submit" else ()), UNAVAILABLE)
    common = {str(one.status): _answer(path, one, scope=needed) for one in refusals}
    responses = {**common, **operation["responses"]}
    return {**operation, "security": security, "responses": dict(sorted(responses.items()))}


def _answer(path: str, refusal: Refusal, *, scope: str) -> dict[str, Any]:
    problem = Problem(refusal.status, refusal.code, refusal.message.format(scope=scope))
    example = json.loads(bytes(DIALECTS.of(path)(problem).body))
    if "timestamp" in example:
        example["timestamp"] = AT_MS
    answer: dict[str, Any] = {
        "description": refusal.description,
        "content": {"application/json": {"example": example}},
    }
    if refusal.headers:
        answer["headers"] = {name: {"schema": {"type": "string"}} for name in refusal.headers}
    return answer
