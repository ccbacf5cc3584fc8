"""Parameters, bodies and answers of the batches API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from core.deliveries import BATCH_OUTCOMES
from ingress.api.examples import COMPLETION
from ingress.api.files.models import FILE_ID
from ingress.api.openai.models import ErrorDetails
from ingress.api.tasks.models import DELIVERY, CallbackDelivery
from ingress.batches.request import ENDPOINTS, MAX_EXPIRES_S, MAX_KEY, MAX_PAIRS, MAX_VALUE, MIN_EXPIRES_S
from ingress.http.routing import left_out
from ingress.http.validation import Digits, Parameters, QueryParameters, RawBody
from ingress.submission.resend import MAX_BODY as RESEND_BODY

MAX_BODY = 131_072
DEFAULT_LIMIT, MAX_LIMIT = 20, 100
BATCH_ID = "batch_01b3d0b7b1d5e07c800003e000000001"
Metadata = Annotated[
    dict[str, Annotated[str, Field(max_length=MAX_VALUE)]],
    Field(
        description=f"At most {MAX_PAIRS} pairs; keys up to {MAX_KEY} characters. `callback_url` is called at the end."
    ),
]


class BatchListQuery(Parameters):
    """Which batches are listed."""

    after: Annotated[str, Field(json_schema_extra={"maxLength": 128})] | None = Field(
        None, description="The id of the last batch of the page before."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Batches per page at most."), Digits] = DEFAULT_LIMIT


class Expiry(BaseModel):
    """When the output and the error file expire."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_EXPIRES_S, le=MAX_EXPIRES_S)


class BatchBody(BaseModel):
    """The request for a batch."""

    input_file_id: str = Field(description="A file with the purpose batch.")
    endpoint: Annotated[str, Field(json_schema_extra={"enum": [*ENDPOINTS]})]
    completion_window: str = Field(description="Whole hours from 24h to 336h, or days from 1d to 14d.")
    metadata: Metadata | None = None
    replace: dict[str, Any] | None = Field(
        None, description="Members that replace those of the body of every line, or are added."
    )
    output_expires_after: Expiry | None = Field(
        None, description="Lifetime of the output and error file from the end of the batch; by default the batch's own."
    )


class BatchResend(BaseModel):
    """Which callback is sent again."""

    model_config = ConfigDict(extra="forbid")

    event: Annotated[str, Field(json_schema_extra={"enum": [*BATCH_OUTCOMES]})] = left_out("Without it the outcome.")


WANTED = {
    "input_file_id": FILE_ID,
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"description": "nightly"},
    "replace": {"model": "smollm2"},
}
BatchListParameters = Annotated[BatchListQuery, Depends(QueryParameters(BatchListQuery))]
CreateBody = Annotated[bytes, Depends(RawBody(BatchBody, limit=MAX_BODY, example=WANTED, required=True))]
ResendBody = Annotated[bytes, Depends(RawBody(BatchResend, limit=RESEND_BODY, example={"event": BATCH_OUTCOMES[0]}))]
BatchId = Annotated[str, Path(description="The id of the batch.")]


class RequestCounts(BaseModel):
    """Lines of a batch."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None = Field(description="Model that replaces those of the lines, if any.")
    errors: list[Any] | dict[str, Any] | None = Field(
        description="Errors of the input file: sentences, or in OpenAI's dialect a list of objects."
    )
    input_file_id: str
    completion_window: str
    status: Literal[
        "in_queue",
        "validating",
        "in_progress",
        "finalizing",
        "completed",
        "failed",
        "expired",
        "cancelling",
        "cancelled",
    ] = Field(description="in_queue in SiliconFlow's dialect is validating in OpenAI's.")
    output_file_id: str | None = Field(
        description="Known and readable from the start; null when the batch has ended without any output."
    )
    error_file_id: str | None
    created_at: int = Field(description="Epoch seconds, as all times here.")
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts | None = Field(description="Null while in_queue.")
    usage: dict[str, Any] | None = Field(description="Tokens of all lines.")
    metadata: Metadata | None
    file_name: str | None = left_out("In lists of SiliconFlow's dialect only.")


class BatchList(BaseModel):
    """A page of batches."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchDeliveryList(BaseModel):
    """The callbacks of a batch."""

    object: Literal["list"]
    batch_id: str
    data: list[CallbackDelivery]


class BatchErrorObject(BaseModel):
    """An error in SiliconFlow's dialect; one in OpenAI's has the member error alone."""

    code: int = left_out()
    message: str = left_out()
    data: str | None = left_out("The member that is wrong.")
    error: ErrorDetails


CREATED = {
    "id": BATCH_ID,
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": "smollm2",
    "errors": None,
    "input_file_id": FILE_ID,
    "completion_window": "24h",
    "status": "in_queue",
    "output_file_id": f"file-{BATCH_ID.removeprefix('batch_')}-output",
    "error_file_id": f"file-{BATCH_ID.removeprefix('batch_')}-errors",
    "created_at": 1_769_860_800,
    "in_progress_at": None,
    "expires_at": 1_769_947_200,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": None,
    "usage": None,
    "metadata": {"description": "nightly"},
}
CANCELLING = CREATED | {"status": "cancelling", "cancelling_at": 1_769_860_860}
PAGE = {
    "object": "list",
    "data": [CREATED | {"file_name": "requests.jsonl"}],
    "first_id": BATCH_ID,
    "last_id": BATCH_ID,
    "has_more": False,
}
LINE = {
    "id": "batch_req_01b3d0b7b1d5e07c800003e000000001",
    "custom_id": "a",
    "response": {"status_code": 200, "request_id": "TASK-1827364554-1-P-260131120000-0003-000000", "body": COMPLETION},
    "error": None,
}
DELIVERIES = {
    "object": "list",
    "batch_id": BATCH_ID,
    "data": [DELIVERY | {"id": f"{BATCH_ID}-{BATCH_OUTCOMES[0]}", "event": BATCH_OUTCOMES[0]}],
}
