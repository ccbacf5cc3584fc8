"""Bodies, headers and answers of the Dify-compatible API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Body, Depends, Header, Path
from pydantic import BaseModel, Field, WithJsonSchema
from pydantic.config import JsonDict

from ingress.api.examples import IDEMPOTENCY
from ingress.http.options import DESCRIPTIONS, QUEUE, RETENTION, RUN_TIMEOUT, START_TIMEOUT, TIMEOUT
from ingress.http.routing import error, left_out
from ingress.http.validation import FormBody, RawBody

ID = "1b2d5f0a-0000-8000-8c3a-00000c042680"
CREATED = 1_769_860_800
EndUser = Annotated[str, Field(max_length=256)]
HEADER: JsonDict = {"maxLength": 64}


class DifyFile(BaseModel):
    """A file of a completion message."""

    type: Literal["image", "document", "audio", "video", "custom"] = Field(
        description="Only images are passed to the model."
    )
    transfer_method: Literal["remote_url", "local_file"]
    url: str = left_out("With remote_url; the model server fetches it.")
    upload_file_id: str = left_out("With local_file: the id that files/upload returned to the same user.")


class CompletionMessage(BaseModel):
    """A prompt."""

    inputs: Annotated[dict[str, Any], Field(min_length=1)] = Field(description="query, or the names of the template.")
    query: str = left_out()
    response_mode: Literal["blocking", "streaming"] | None = "blocking"
    user: EndUser = Field("DEFAULT-USER", description="The end user of the client's application.")
    files: list[DifyFile] | None = left_out()


class CompletionHeaders(BaseModel):
    """Headers of a completion message."""

    queue: str = Field("", alias=QUEUE, description=DESCRIPTIONS[QUEUE], json_schema_extra=HEADER)
    timeout: str = Field("", alias=TIMEOUT, description=DESCRIPTIONS[TIMEOUT], json_schema_extra=HEADER)
    start_timeout: str = Field(
        "", alias=START_TIMEOUT, description=DESCRIPTIONS[START_TIMEOUT], json_schema_extra=HEADER
    )
    run_timeout: str = Field("", alias=RUN_TIMEOUT, description=DESCRIPTIONS[RUN_TIMEOUT], json_schema_extra=HEADER)
    retention: str = Field("", alias=RETENTION, description=DESCRIPTIONS[RETENTION], json_schema_extra=HEADER)
    idempotency_key: Annotated[str, Field(max_length=256)] = Field("", alias="Idempotency-Key", description=IDEMPOTENCY)
    traceparent: Annotated[str, Field(max_length=256)] = Field(
        "", description="W3C trace context, passed on with the task."
    )


class StopRequest(BaseModel):
    """Who stops a stream."""

    user: EndUser = Field("DEFAULT-USER", description="The user whose stream it is.")


class Feedback(BaseModel):
    """The rating of an answer."""

    rating: Literal["like", "dislike"] | None = Field(None, description="Null withdraws the rating.")
    user: EndUser = Field("DEFAULT-USER", description="The user who got the answer.")
    content: str | None = None


class UploadedFileForm(BaseModel):
    """The form of an upload."""

    file: Annotated[str, WithJsonSchema({"type": "string", "format": "binary"})]
    user: EndUser = "DEFAULT-USER"


_MESSAGE = {"inputs": {"query": "Why is the sky blue?"}, "user": "abc-123"}
_PICTURE = {"type": "image", "transfer_method": "remote_url", "url": "http://127.0.0.1:9000/mill.png"}
MESSAGES: dict[str, Any] = {
    "blocking": {"value": _MESSAGE | {"response_mode": "blocking"}},
    "streaming": {"value": _MESSAGE | {"response_mode": "streaming"}},
    "picture": {"value": _MESSAGE | {"files": [_PICTURE]}},
}


def completion_request(
    body: Annotated[CompletionMessage, Body(openapi_examples=MESSAGES)],
    headers: Annotated[CompletionHeaders, Header()],
) -> None:
    """Declare what a completion message may have, for the document; `read_ask` reads it."""


StopBody = Annotated[bytes, Depends(RawBody(StopRequest, example={"user": "abc-123"}, required=True))]
FeedbackBody = Annotated[
    bytes,
    Depends(RawBody(Feedback, example={"rating": "like", "user": "abc-123", "content": "helpful"}, required=True)),
]
UploadForm = Annotated[None, Depends(FormBody(UploadedFileForm))]
StreamId = Annotated[str, Path(alias="task_id", description="task_id of the stream's events.")]
MessageId = Annotated[str, Path(alias="message_id", description="message_id of the answer.")]
QueueHeader = Annotated[str | None, Header(alias=QUEUE, description=DESCRIPTIONS[QUEUE], json_schema_extra=HEADER)]


class DifyUsage(BaseModel):
    """Tokens and prices of a call."""

    prompt_tokens: int
    prompt_unit_price: str
    prompt_price_unit: str
    prompt_price: str
    completion_tokens: int
    completion_unit_price: str
    completion_price_unit: str
    completion_price: str
    total_tokens: int
    total_price: str
    currency: str
    latency: float


class MessageMetadata(BaseModel):
    """What is known about an answer."""

    usage: DifyUsage
    retriever_resources: list[Any]


class DifyMessage(BaseModel):
    """The answer to a prompt."""

    event: Literal["message"]
    task_id: str
    id: str
    message_id: str
    mode: Literal["completion"]
    answer: str
    metadata: MessageMetadata
    created_at: int = Field(description="Epoch seconds.")


class UploadedFile(BaseModel):
    """An uploaded file."""

    id: str
    name: str
    size: int
    extension: str
    mime_type: str
    created_by: str
    created_at: int = Field(description="Epoch seconds.")
    preview_url: None
    source_url: None
    original_url: None
    user_id: str
    tenant_id: str
    conversation_id: None
    file_key: None
    reference: None


class Success(BaseModel):
    """The request was carried out, or there was nothing to do."""

    result: Literal["success"]


class AppInfo(BaseModel):
    """The application of a queue."""

    name: str
    description: str
    tags: list[str]
    mode: Literal["completion"]
    author_name: str


class AppMeta(BaseModel):
    """The icons of an application's tools: there are none."""

    tool_icons: dict[str, Any]


class DifyErrorObject(BaseModel):
    """An error of the Dify-compatible API."""

    code: str
    message: str
    status: int
    params: str = left_out("The member that is wrong.")


USAGE = {
    "prompt_tokens": 1033,
    "prompt_unit_price": "0.001",
    "prompt_price_unit": "0.001",
    "prompt_price": "0.0010330",
    "completion_tokens": 128,
    "completion_unit_price": "0.002",
    "completion_price_unit": "0.001",
    "completion_price": "0.0002560",
    "total_tokens": 1161,
    "total_price": "0.0012890",
    "currency": "USD",
    "latency": 0.768,
}
ANSWER = {
    "event": "message",
    "task_id": ID,
    "id": ID,
    "message_id": ID,
    "mode": "completion",
    "answer": "Blue light…",
    "metadata": {"usage": USAGE, "retriever_resources": []},
    "created_at": CREATED,
}
EVENTS = (
    f'data: {{"event":"message","task_id":"{ID}","id":"{ID}","message_id":"{ID}","created_at":{CREATED},'
    '"answer":"Blue"}\n\nevent: ping\n\n'
    f'data: {{"event":"message_end","task_id":"{ID}","id":"{ID}","message_id":"{ID}","created_at":{CREATED},'
    '"metadata":{"usage":{},"retriever_resources":[]},"files":null}\n\n'
)
FILE = {
    "id": "6f1c7a52-8f0e-4d0b-9a64-0c8a3f2f9b11",
    "name": "mill.png",
    "size": 1024,
    "extension": "png",
    "mime_type": "image/png",
    "created_by": "abc-123",
    "created_at": CREATED,
    "preview_url": None,
    "source_url": None,
    "original_url": None,
    "user_id": "abc-123",
    "tenant_id": "key-0123456789ab",
    "conversation_id": None,
    "file_key": None,
    "reference": None,
}


def dify_error(status: int, code: str, message: str) -> dict[str, Any]:
    """Return the example of an error."""
    return {"code": code, "message": message, "status": status}


WRONG_FIELD = error(
    "A field is wrong, or the model's call failed.",
    dify_error(400, "completion_request_error", "the upstream answered 500"),
)
TOO_LARGE = error(
    "The body or the file is too large.",
    dify_error(413, "file_too_large", "an image must be at most 10485760 bytes"),
)
BAD_TYPE = error(
    "Files of this type are not accepted.",
    dify_error(415, "unsupported_file_type", "files of this type are not taken"),
)
NO_MESSAGE = error(
    "No such message of this user.", dify_error(404, "not_found", "there is no such message of this user")
)
RATE_LIMITED = error("The key's rate limit is exceeded; `Retry-After` is set.")
