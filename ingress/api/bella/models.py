"""Bodies, headers and answers of the queue API, which Bella's clients speak."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Body, Depends, Header, Path
from pydantic import BaseModel, ConfigDict, Field

from ingress.api.examples import CHAT, COMPLETION, IDEMPOTENCY, TASK_TEXT
from ingress.http.routing import Responses, error, left_out
from ingress.http.validation import RawBody
from ingress.pull.strategies import STRATEGIES
from schemas.validation import CALLBACK_EVENTS

QueueName = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
QueueLevelName = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}:[01]$")]
Seconds = Annotated[int, Field(ge=1)]


class PutBody(BaseModel):
    """A task."""

    model_config = ConfigDict(extra="forbid")

    queue: QueueName = Field(description="Registered on first use.")
    endpoint: str = Field(description="Path of the upstream API, such as /v1/chat/completions.")
    level: Literal[0, 1] = Field(0, description="0 online; 1 offline, in callback mode only.")
    data: dict[str, Any] = Field(description="Body for the upstream; passed on unchanged, except for `stream`.")
    response_mode: Literal["callback", "blocking", "streaming"] = "callback"
    callback_url: str = left_out("Where the outcome is posted; without it poll the task.")
    callback_events: list[Annotated[str, Field(json_schema_extra={"enum": [*CALLBACK_EVENTS]})]] = left_out(
        "Events that are posted to callback_url; without it only the outcome."
    )
    timeout: Seconds = left_out(
        "Seconds after which the task ends at the latest; 300 blocking and streaming, 86400 callback."
    )
    start_timeout: Seconds = left_out(
        "Seconds after which a worker must have started it; else it ends as start_timeout."
    )
    run_timeout: Seconds = left_out("Seconds that one call may take; a longer one is closed and tried again.")
    result_retention: Seconds = left_out("Seconds that the result can be fetched, 86400 by default, at most 604800.")
    trace_id: Annotated[str, Field(max_length=256)] = left_out("Of the client, to find tasks that belong together.")


class PutHeaders(BaseModel):
    """Headers of a put."""

    idempotency_key: Annotated[str, Field(max_length=256)] = Field("", alias="Idempotency-Key", description=IDEMPOTENCY)
    traceparent: Annotated[str, Field(max_length=256)] = Field(
        "", description="W3C trace context, passed on with the task."
    )


PUT = {"queue": "chat", "endpoint": "/v1/chat/completions", "data": CHAT}
PUT_EXAMPLES: dict[str, Any] = {
    "callback": {"value": PUT | {"callback_url": "http://127.0.0.1:9000/done"}},
    "blocking": {"value": PUT | {"response_mode": "blocking", "timeout": 60}},
    "streaming": {"value": PUT | {"response_mode": "streaming"}},
}


def put_request(
    body: Annotated[PutBody, Body(openapi_examples=PUT_EXAMPLES)], headers: Annotated[PutHeaders, Header()]
) -> None:
    """Declare what a put may have, for the document; `parse_put` reads it."""


class QueueRegisterBody(BaseModel):
    """A queue that workers will serve."""

    queue: QueueName
    endpoint: str = Field(description="Path of the API that its tasks are for; shown by metadata, not enforced.")
    served_by: Literal["workers", "dispatcher"] = Field(
        "workers",
        description="workers fetch its tasks over HTTP; the dispatcher calls the model servers itself.",
    )


class TakeBody(BaseModel):
    """Which tasks a worker takes."""

    queues: list[QueueLevelName] = Field(min_length=1, description="NAME:LEVEL, in order of preference.")
    size: int = Field(1, ge=1, description="At most 10 with fifo, 100 else.")
    strategy: Annotated[str, Field(json_schema_extra={"enum": [*STRATEGIES]})] = "fifo"
    process_timeout: Annotated[int, Field(ge=0)] = left_out(
        "Seconds after which a task that was not completed can be taken again."
    )
    process_max_retries: Annotated[int, Field(ge=-1)] = left_out("How often; -1 for no limit.")
    min_age_seconds: Annotated[int, Field(ge=0)] = left_out("Only tasks that are older.")


class CompleteBody(BaseModel):
    """The outcome of a task."""

    status_code: int = Field(200, ge=200, le=599)
    request_id: str = left_out("The id of the task in any form, if it is given.")
    body: Any = Field(description="The answer, not null. A text is passed on unchanged, anything else as JSON.")
    result_encoding: Literal["base64"] = left_out("When the body has bytes in base64.")
    result_content_type: str = left_out("Media type of these bytes, such as audio/mpeg.")
    attempt: Annotated[int, Field(ge=1)] = left_out("As take returned it; else the present one.")


RegisterBody = Annotated[
    bytes,
    Depends(RawBody(QueueRegisterBody, example={"queue": "chat", "endpoint": "/v1/chat/completions"}, required=True)),
]
TakeRequestBody = Annotated[
    bytes, Depends(RawBody(TakeBody, example={"queues": ["video:0", "video:1"], "size": 5}, required=True))
]
CompletionBody = Annotated[
    bytes,
    Depends(
        RawBody(CompleteBody, example={"status_code": 200, "request_id": TASK_TEXT, "body": COMPLETION}, required=True)
    ),
]
QueuePath = Annotated[str, Path(alias="queue", description="Name of the queue.")]
QueueLevelPath = Annotated[
    str,
    Path(alias="queue_level", description="NAME:LEVEL", json_schema_extra={"pattern": "^[a-zA-Z0-9_-]{1,64}:[01]$"}),
]


class UpstreamOutcome(BaseModel):
    """The result of a task, as callbacks have it, too."""

    status_code: int
    request_id: str
    body: Any


class BellaTask(BaseModel):
    """A task; members without a value are left out."""

    task_id: str
    endpoint: str
    queue: str
    level: Literal[0, 1]
    data: dict[str, Any] = left_out()
    status: Literal["waiting", "queued", "succeeded", "failed", "timeout", "cancelled"]
    start_time: int = Field(description="Epoch milliseconds.")
    expire_time: int = Field(description="Epoch milliseconds.")
    running_time: int = left_out("Epoch milliseconds.")
    completed_time: int = left_out("Epoch milliseconds.")
    callback_url: str = left_out()
    response_mode: str
    trace_id: str = left_out()
    result: UpstreamOutcome = left_out()


class TakenTask(BaseModel):
    """A task that a worker has taken."""

    task_id: str
    ak: str = Field(description="Always empty.")
    endpoint: str
    queue: str
    level: Literal[0, 1]
    data: dict[str, Any] = left_out()
    status: str
    instance_id: str
    start_time: int = Field(description="Epoch milliseconds.")
    expire_time: int = Field(description="Epoch milliseconds.")
    response_mode: str
    attempt: int = Field(description="To be sent back with complete.")


class QueueMetadata(BaseModel):
    """A queue."""

    queue: str
    endpoint: str
    served_by: Literal["workers", "dispatcher"]


class QueueCounters(BaseModel):
    """Bella's head row of a queue and level."""

    queue: str
    level: Literal[0, 1]
    last_wrote_sharding_key: str
    last_wrote_id: str
    last_scanned_sharding_key: str
    last_scanned_id: str
    total_put_cnt: int = Field(ge=0)
    total_loaded_cnt: int = Field(ge=0)
    total_completed_cnt: int = Field(ge=0)


class BellaError(BaseModel):
    """An error of the queue API."""

    code: int = Field(description="The HTTP status.")
    message: str
    timestamp: int = Field(description="Epoch milliseconds.")
    field: str = left_out("The member that is wrong.")


ACCEPTED = {"code": 200, "timestamp": 1_769_860_800_000, "data": TASK_TEXT}
TASK = {
    "task_id": TASK_TEXT,
    "endpoint": "/v1/chat/completions",
    "queue": "chat",
    "level": 0,
    "data": CHAT,
    "status": "succeeded",
    "start_time": 1_769_860_800_000,
    "expire_time": 1_769_947_200_000,
    "running_time": 1_769_860_800_012,
    "completed_time": 1_769_860_801_250,
    "response_mode": "callback",
    "result": {"status_code": 200, "request_id": TASK_TEXT, "body": COMPLETION},
}
TAKEN = {
    "task_id": TASK_TEXT,
    "ak": "",
    "endpoint": "/v1/chat/completions",
    "queue": "chat",
    "level": 0,
    "data": CHAT,
    "status": "queued",
    "instance_id": "0003",
    "start_time": 1_769_860_800_000,
    "expire_time": 1_769_947_200_000,
    "response_mode": "callback",
    "attempt": 1,
}
METADATA = {"queue": "chat", "endpoint": "/v1/chat/completions", "served_by": "workers"}
COUNTERS = {
    "queue": "chat",
    "level": 0,
    "last_wrote_sharding_key": "0003",
    "last_wrote_id": TASK_TEXT,
    "last_scanned_sharding_key": "0003",
    "last_scanned_id": TASK_TEXT,
    "total_put_cnt": 12,
    "total_loaded_cnt": 9,
    "total_completed_cnt": 8,
}


def _error(status: int, description: str, message: str, field: str | None = None) -> Responses:
    example: dict[str, Any] = {"code": status, "message": message, "timestamp": 1_769_860_800_000}
    if field is not None:
        example["field"] = field
    return {status: error(description, example)}


PUT_ERRORS: Responses = {
    **_error(400, "A member of the body is missing or wrong.", "data is required", "data"),
    **_error(408, "The task timed out and was cancelled; `x-should-retry: false` is set.", "the task timed out"),
    **_error(
        410,
        "The first task with this Idempotency-Key has ended and its result is no longer retained.",
        f"the result of {TASK_TEXT} is no longer retained",
    ),
    **_error(
        422,
        "The Idempotency-Key was used for another request.",
        f"this Idempotency-Key was used for {TASK_TEXT} with another endpoint or body",
        "Idempotency-Key",
    ),
    **_error(502, "The upstream could not be reached or broke off.", "the upstream closed the connection"),
    **_error(
        503,
        "Kafka or every upstream is away, or too many wait; `Retry-After` is set when nothing was accepted.",
        "Kafka cannot be reached now; nothing was accepted, try again in some seconds",
    ),
}
NOT_CANCELLABLE = _error(
    400,
    "The task has ended already.",
    f"task_not_cancellable: task {TASK_TEXT} has ended already (completed)",
)
NO_QUEUE = _error(
    404, "No such queue, or it belongs to another tenant.", "there is no queue chat that this key may take from"
)
