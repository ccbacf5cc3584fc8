"""Bodies, headers and answers of the OpenAI-compatible API, and the declarations of its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Body, Header, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from ingress.api.examples import CHAT, COMPLETION, IDEMPOTENCY, STREAM, TASK_TEXT
from ingress.api.tasks.models import TASK_ID
from ingress.api.tasks.serialization import location
from ingress.http import options
from ingress.http.routing import JSON, Responses, error, left_out, with_example
from ingress.http.sse import MEDIA_TYPE as EVENT_STREAM
from schemas.records import State

FLAGS = ("true", "false", "1", "0")
HEADERS = {**options.DESCRIPTIONS, "Idempotency-Key": IDEMPOTENCY, "traceparent": "W3C trace context."}
Flag = Annotated[str, Field(json_schema_extra={"enum": [*FLAGS]})]
Bytes = Annotated[str, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})]

CallHeaders = create_model(
    "CallHeaders",
    **{  # type: ignore[call-overload]  # fields by name, which mypy does not follow
        name.lower().replace("-", "_"): (
            str,
            Field(
                "",
                alias=name,
                description=text,
                json_schema_extra={"maxLength": 256 if name in ("Idempotency-Key", "traceparent") else 2048},
            ),
        )
        for name, text in HEADERS.items()
    },
)
"""Headers of every call."""


class ModelCall(BaseModel):
    """Base of the calls with a JSON body; other members are passed on to the model server."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(max_length=256, description="A model that GET /v1/models lists.")
    stream: bool = left_out("Answer with server-sent events. Not for embeddings.")
    asynchronous: bool = left_out("Answer 202 at once. The model's setting unless given.", alias="async")


class ChatCall(ModelCall):
    """A chat completion."""

    messages: list[dict[str, Any]]


class CompletionCall(ModelCall):
    """A text completion."""

    prompt: Any = Field(description="A string, or a list as the API has it.")


class EmbeddingCall(ModelCall):
    """Embeddings."""

    input: Any = Field(description="A string, or a list as the API has it.")


class ImageCall(ModelCall):
    """Images."""

    prompt: str


class CallForm(BaseModel):
    """Base of the calls with a form; other fields are passed on to the model server."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(max_length=256, description="A model that GET /v1/models lists.")
    asynchronous: Flag = left_out("Answer 202 at once. The model's setting unless given.", alias="async")


class TranslationForm(CallForm):
    """Speech to be translated."""

    file: Bytes = Field(description="The recording; its format follows from its name or its media type.")


class TranscriptionForm(TranslationForm):
    """Speech to be transcribed."""

    stream: Flag = left_out("Answer with server-sent events.")


class EditForm(CallForm):
    """Images to be edited."""

    image: Bytes = left_out("The image; several as repeated `image[]`.")
    images: list[Bytes] = left_out(alias="image[]")
    mask: Bytes = left_out()
    prompt: str
    stream: Flag = left_out("Answer with server-sent events.")


class AcceptedTask(BaseModel):
    """The answer to an async call."""

    id: str = Field(description="task_ and 32 hex digits.")
    status: State
    progress: int = Field(ge=0, le=100)
    created_at: AwareDatetime
    request_id: str


class ModelObject(BaseModel):
    """A model."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: int = Field(description="Epoch seconds.")
    owned_by: str
    queue: str = Field(description="Queue of calls that name none.")


class ModelList(BaseModel):
    """The models."""

    object: Literal["list"]
    data: list[ModelObject]


ModelPath = Annotated[str, Path(description="Its id, slashes included.")]


class ErrorDetails(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error of the OpenAI-compatible API."""

    error: ErrorDetails


MODEL = {"id": "smollm2", "object": "model", "created": 1_769_860_800, "owned_by": "llamacpp", "queue": "default"}
LOCATION = location(TASK_ID)
ACCEPTED = {
    "id": TASK_ID.task(),
    "status": "queued",
    "progress": 0,
    "created_at": "2026-01-31T12:00:00Z",
    "request_id": TASK_ID.request(),
}
TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_769_860_801,
    "model": "smollm2",
    "choices": [{"index": 0, "text": " there was a mill", "logprobs": None, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9},
}
VECTORS = {
    "object": "list",
    "model": "bge-m3",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
IMAGE = {"created": 1_769_860_805, "data": [{"b64_json": "iVBORw0KGgo…"}]}
TEXT_STREAM = (
    'data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" there"}]}\n\n'
    ": keep-alive\ndata: [DONE]\n\n"
)
IMAGE_STREAM = (
    "event: image_generation.partial_image\n"
    'data: {"type":"image_generation.partial_image","b64_json":"iVBORw0KGgo…","partial_image_index":0}\n\n'
    "event: image_generation.completed\n"
    'data: {"type":"image_generation.completed","b64_json":"iVBORw0KGgo…"}\n\n'
    "data: [DONE]\n\n"
)
EDIT_STREAM = (
    'event: image_edit.completed\ndata: {"type":"image_edit.completed","b64_json":"iVBORw0KGgo…"}\n\ndata: [DONE]\n\n'
)
TRANSCRIPT = {"text": "The river turns the wheel."}
SUBTITLES = "1\n00:00:00,000 --> 00:00:02,000\nThe river turns the wheel.\n"
TRANSCRIPT_STREAM = (
    'data: {"type":"transcript.text.delta","delta":"The river"}\n\n'
    'data: {"type":"transcript.text.done","text":"The river turns the wheel."}\n\n'
    "data: [DONE]\n\n"
)


class JsonCall(NamedTuple):
    """The declaration of a call with a JSON body."""

    path: str
    operation_id: str
    summary: str
    model: type[ModelCall]
    request: dict[str, Any]
    answer: dict[str, Any]
    stream: str | None = None

    @property
    def content(self) -> dict[str, Any]:
        """Return the examples of the good answer by media type."""
        found: dict[str, Any] = {JSON: with_example(self.answer)}
        if self.stream is not None:
            found[EVENT_STREAM] = with_example(self.stream)
        return found

    def declaration(self) -> Callable[..., None]:
        """Return a dependency that declares body and headers; the endpoint reads them itself."""
        examples: dict[str, Any] = {
            "blocking": {"value": self.request},
            "async": {"value": self.request | {"async": True}},
        }
        if self.stream is not None:
            examples["streamed"] = {"value": self.request | {"stream": True}}
        return declaring(Annotated[self.model, Body(openapi_examples=examples)])


class FormCall(NamedTuple):
    """The declaration of a call with a form."""

    path: str
    operation_id: str
    summary: str
    model: type[CallForm]
    content: dict[str, Any]

    def declaration(self) -> Callable[..., None]:
        """Return a dependency that declares form and headers; the endpoint reads them itself."""
        return declaring(Annotated[self.model, Body(media_type="multipart/form-data")])


def declaring(body: Any) -> Callable[..., None]:
    """Return a dependency that declares a body and the headers of a call, for the document."""

    def declared(body: Any, headers: Any) -> None:
        """Do nothing."""

    declared.__annotations__ = {"body": body, "headers": Annotated[CallHeaders, Header()], "return": None}
    return declared


JSON_CALLS = (
    JsonCall("/chat/completions", "chat", "Complete a chat", ChatCall, CHAT, COMPLETION, STREAM),
    JsonCall(
        "/completions",
        "complete",
        "Complete a text",
        CompletionCall,
        {"model": "smollm2", "prompt": "Once upon a time"},
        TEXT,
        TEXT_STREAM,
    ),
    JsonCall("/embeddings", "embed", "Embed texts", EmbeddingCall, {"model": "bge-m3", "input": ["a mill"]}, VECTORS),
    JsonCall(
        "/images/generations",
        "picture",
        "Make images",
        ImageCall,
        {"model": "flux", "prompt": "a mill", "n": 1},
        IMAGE,
        IMAGE_STREAM,
    ),
)
_TRANSCRIPT = {JSON: with_example(TRANSCRIPT), "text/plain": with_example(SUBTITLES)}
FORM_CALLS = (
    FormCall(
        "/audio/transcriptions",
        "transcribe",
        "Transcribe speech",
        TranscriptionForm,
        _TRANSCRIPT | {EVENT_STREAM: with_example(TRANSCRIPT_STREAM)},
    ),
    FormCall("/audio/translations", "translate", "Translate speech to English", TranslationForm, _TRANSCRIPT),
    FormCall(
        "/images/edits",
        "edit",
        "Edit images",
        EditForm,
        {JSON: with_example(IMAGE), EVENT_STREAM: with_example(EDIT_STREAM)},
    ),
)
TASK_HEADERS = {
    "x-task-id": {"description": "Id of the task, in the TASK- form.", "schema": {"type": "string"}},
    "Location": {"description": "Path of the task.", "schema": {"type": "string"}, "example": LOCATION},
}


def openai_error(
    message: str, *, code: str, param: str | None = None, kind: str = "invalid_request_error"
) -> dict[str, Any]:
    """Return the example of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


NO_MODEL = error(
    "No model server lists this model.",
    openai_error(
        "The model `gpt-9` does not exist; GET /v1/models lists those that do", code="model_not_found", param="model"
    ),
)


def call_responses(content: dict[str, Any]) -> Responses:
    """Describe the answers of a call; `content` is that of the good one."""
    return {
        200: {"description": "The model server's answer.", "headers": TASK_HEADERS, "content": content},
        202: {
            "description": "Accepted (async): ask at `Location`, after `Retry-After` seconds.",
            "model": AcceptedTask,
            "headers": TASK_HEADERS | {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
            "content": {JSON: with_example(ACCEPTED)},
        },
        400: error(
            "A member or header is missing or wrong; `param` names it. Or the model server's own error.",
            openai_error("you must provide a model parameter", code="invalid_request", param="model"),
        ),
        404: NO_MODEL,
        410: error(
            "The first task with this Idempotency-Key has ended and its result is no longer retained.",
            openai_error(f"the result of {TASK_TEXT} is no longer retained", code="gone"),
        ),
        413: error(
            "The body is larger than ingress.max_body_bytes, or its files than ingress.max_upload_bytes.",
            openai_error("the body is larger than 16777216 bytes", code="too_large", param="body"),
        ),
        422: error(
            "The Idempotency-Key was used for another request.",
            openai_error(
                f"this Idempotency-Key was used for {TASK_TEXT} with another endpoint or body",
                code="idempotency_conflict",
                param="Idempotency-Key",
            ),
        ),
        502: error(
            "The model server broke off its answer.",
            openai_error("the upstream broke off its answer", code="upstream_cut", kind="server_error"),
        ),
        503: error(
            "Kafka or every model server is away, or too many wait; `Retry-After` is set when nothing was accepted.",
            openai_error(
                "Kafka cannot be reached now; nothing was accepted, try again in some seconds",
                code="unavailable",
                kind="server_error",
            ),
        ),
        504: error(
            "The wait or the task's time-out is over; after a wait the task continues. `x-should-retry: false` is set.",
            openai_error(
                f"task {TASK_TEXT} has no outcome yet; it continues, see GET {LOCATION}. Do not send it again",
                code="wait_exceeded",
                kind="server_error",
            ),
        ),
    }


NOT_A_FORM = error(
    "The body is not a form.",
    openai_error("the body must be of type multipart/form-data", code="unsupported_media_type", param="content-type"),
)
