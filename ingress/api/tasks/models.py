"""Parameters, bodies and answers of the tasks API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import AwareDatetime, BaseModel, Field

from core.deliveries import BATCH_OUTCOMES
from ingress.api.examples import COMPLETION, TASK_TEXT
from ingress.http.routing import left_out
from ingress.http.validation import Digits, Parameters, QueryParameters, RawBody
from ingress.submission.resend import MAX_BODY
from schemas.ids import parse
from schemas.records import STATES, DeliveryState, State
from schemas.validation import CALLBACK_EVENTS

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
TIME = "ISO 8601 (in UTC unless it has an offset) or epoch seconds."


class TaskListQuery(Parameters):
    """Which tasks are listed."""

    after: str | None = Field(None, description="Where the page begins: after this `next_cursor` or task id.")
    created_after: str | None = Field(None, description=f"Created at this time or later: {TIME}")
    created_before: str | None = Field(None, description=f"Created before this time: {TIME}")
    level: Annotated[str, Field(json_schema_extra={"enum": ["online", "offline", "0", "1"]})] | None = Field(
        None, description="0 or online, 1 or offline."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Tasks per page at most."), Digits] = DEFAULT_LIMIT
    model: str | None = Field(None, description="Name of the model.")
    queue: str | None = Field(None, description="Name of the queue.")
    status: str | None = Field(None, description=f"One or several of {', '.join(STATES)}, separated by commas.")


class ResendRequest(BaseModel):
    """Which callback is sent again."""

    model_config = {"extra": "forbid"}

    event: Annotated[str, Field(json_schema_extra={"enum": [*CALLBACK_EVENTS]})] = left_out("Without it the outcome.")


TaskListParameters = Annotated[TaskListQuery, Depends(QueryParameters(TaskListQuery))]
ResendBody = Annotated[bytes, Depends(RawBody(ResendRequest, limit=MAX_BODY, example={"event": "completed"}))]


class TokenCounts(BaseModel):
    """Tokens of a call."""

    input_tokens: int = left_out(ge=0)
    output_tokens: int = left_out(ge=0)


class AsyncTask(BaseModel):
    """A task; members without a value are left out."""

    id: str = Field(description="task_ and 32 hex digits.")
    object: Literal["task"] = Field(description="Always task.")
    status: State = Field(description="State of the task; the last four are final.")
    progress: int = Field(ge=0, le=100, description="Percent done.")
    model_code: str = left_out("Model named in the request.")
    request_id: str = Field(description="req_ and 32 hex digits.")
    queue: str = Field(description="Queue.")
    level: Literal[0, 1] = Field(description="0 online, 1 offline.")
    endpoint: str = left_out("Path that is called at the model server.")
    trace_id: str = left_out("As the client gave it.")
    created_at: AwareDatetime = Field(description="When it was accepted.")
    updated_at: AwareDatetime = Field(description="When it changed last.")
    started_at: AwareDatetime = left_out("When a worker started it.")
    deadline_at: AwareDatetime = left_out("Time by which it ends at the latest, while it has not ended.")
    completed_at: AwareDatetime = left_out("When it was completed.")
    failed_at: AwareDatetime = left_out("When it failed.")
    cancelled_at: AwareDatetime = left_out("When it was cancelled.")
    expires_at: AwareDatetime = left_out("Until when the result can be fetched.")
    expired_at: AwareDatetime = left_out("When the result was deleted.")
    status_code: int = left_out("HTTP status of the outcome.")
    usage: TokenCounts = left_out("Tokens.")
    result: Any = left_out("The model server's body.")
    result_content_type: str = left_out("Media type of the result, when it is not JSON.")
    result_encoding: Literal["base64"] = left_out("When the result is not text.")
    error_code: str = left_out("Short name of the failure, such as timeout.")
    error_message: str = left_out("The failure in a sentence.")


class TaskList(BaseModel):
    """A page of tasks."""

    object: Literal["list"] = Field(description="Always list.")
    data: list[AsyncTask] = Field(description="The tasks, without result and usage.")
    first_id: str | None = Field(description="Id of the first task of the page.")
    last_id: str | None = Field(description="Id of the last task of the page.")
    has_more: bool = Field(description="Whether there may be more tasks.")
    next_cursor: str | None = Field(description="To be sent as `after` for the next page.")


class DeliveryAttempt(BaseModel):
    """One attempt to deliver a callback."""

    attempted_at: AwareDatetime
    status_code: int | None = Field(description="Null when the receiver gave none.")
    latency_ms: int
    reason: str


class CallbackDelivery(BaseModel):
    """A callback and its attempts."""

    id: str = Field(description="The webhook-id header, the same in every attempt.")
    object: Literal["delivery"]
    event: Annotated[str, Field(json_schema_extra={"enum": [*CALLBACK_EVENTS, *BATCH_OUTCOMES]})]
    url: str
    status: DeliveryState
    attempts_made: int
    next_attempt_at: AwareDatetime | None
    attempts: list[DeliveryAttempt] = Field(description="The newest 20, the oldest first.")


class DeliveryList(BaseModel):
    """The callbacks of a task."""

    object: Literal["list"]
    task_id: str
    data: list[CallbackDelivery]


TASK_ID = parse(TASK_TEXT)
_COMMON = {
    "id": TASK_ID.task(),
    "object": "task",
    "model_code": "smollm2",
    "request_id": TASK_ID.request(),
    "queue": "default",
    "level": 0,
    "endpoint": "/v1/chat/completions",
    "created_at": "2026-01-31T12:00:00Z",
}
PROCESSING = _COMMON | {
    "status": "processing",
    "progress": 45,
    "updated_at": "2026-01-31T12:00:01Z",
    "started_at": "2026-01-31T12:00:00Z",
    "deadline_at": "2026-02-01T12:00:00Z",
}
_ENDED = _COMMON | {"updated_at": "2026-01-31T12:00:02Z", "expires_at": "2026-02-01T12:00:02Z"}
COMPLETED = _ENDED | {
    "status": "completed",
    "progress": 100,
    "completed_at": "2026-01-31T12:00:02Z",
    "status_code": 200,
    "usage": {"input_tokens": 15, "output_tokens": 32},
    "result": COMPLETION,
}
FAILED = _ENDED | {
    "status": "failed",
    "progress": 0,
    "failed_at": "2026-01-31T12:00:02Z",
    "status_code": 408,
    "error_code": "timeout",
    "error_message": "no outcome within 60 s",
}
CANCELLED = _ENDED | {
    "status": "cancelled",
    "progress": 0,
    "cancelled_at": "2026-01-31T12:00:02Z",
    "status_code": 499,
    "error_code": "cancelled",
    "error_message": "cancelled on request",
}
NOT_CANCELLABLE = {
    "error": {
        "message": f"task_not_cancellable: task {TASK_TEXT} has ended already (completed)",
        "type": "invalid_request_error",
        "param": None,
        "code": "task_not_cancellable",
    }
}
PAGE = {
    "object": "list",
    "data": [PROCESSING],
    "first_id": TASK_ID.task(),
    "last_id": TASK_ID.task(),
    "has_more": True,
    "next_cursor": f"1769860800000-{TASK_ID.task()}",
}
DELIVERY = {
    "id": f"{TASK_TEXT}-completed",
    "object": "delivery",
    "event": "completed",
    "url": "http://127.0.0.1:9000/done",
    "status": "pending",
    "attempts_made": 1,
    "next_attempt_at": "2026-01-31T12:00:06Z",
    "attempts": [
        {
            "attempted_at": "2026-01-31T12:00:01Z",
            "status_code": 503,
            "latency_ms": 12,
            "reason": "the receiver answered 503",
        }
    ],
}
DELIVERIES = {"object": "list", "task_id": TASK_TEXT, "data": [DELIVERY]}
EVENTS = (
    'event: status\ndata: {"id":"task_…","status":"processing","attempt":1,"progress":0}\n\n'
    'id: 1-8f2c01d4-1\ndata: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Blue"}}]}\n\n'
    ": keep-alive\n"
    'event: progress\ndata: {"id":"task_…","progress":50}\n\n'
    'id: 1-8f2c01d4-2\ndata: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" sky"}}]}\n\n'
    'event: status\ndata: {"id":"task_…","status":"completed","attempt":1,"progress":100}\n\n'
    "id: end\ndata: [DONE]\n\n"
)
