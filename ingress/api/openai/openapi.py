"""The OpenAI mirror as OpenAPI: every route once under /queue and once under /v1."""

from __future__ import annotations

from typing import Any, NamedTuple

from ingress.api.openai.openapi_parts import accepted_schema, call_parameters, call_responses, error_schema, errors
from ingress.api.openapi_parts import CHAT, COMPLETION, STREAM

PREFIXES = ("/queue", "/v1")
MODEL = {"id": "smollm2", "object": "model", "created": 1_769_860_800, "owned_by": "llamacpp", "queue": "default"}


class OpenAIOperation(NamedTuple):
    """What is said of one call with a JSON body."""

    path: str
    name: str
    summary: str
    request: dict[str, Any]
    answer: dict[str, Any]
    schema: str
    stream: str | None = None


_TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_769_860_801,
    "model": "smollm2",
    "choices": [{"index": 0, "text": " there was a mill", "logprobs": None, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9},
}
_VECTORS = {
    "object": "list",
    "model": "bge-m3",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}
_PICTURE = {"created": 1_769_860_805, "data": [{"b64_json": "iVBORw0KGgo…"}]}
_TEXT_STREAM = (
    'data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" there"}]}\n\n'
    ": keep-alive\ndata: [DONE]\n\n"
)
_PICTURE_STREAM = (
    "event: image_generation.partial_image\n"
    'data: {"type":"image_generation.partial_image","b64_json":"iVBORw0KGgo…","partial_image_index":0}\n\n'
    "event: image_generation.completed\n"
    'data: {"type":"image_generation.completed","b64_json":"iVBORw0KGgo…"}\n\n'
    "data: [DONE]\n\n"
)
CALLS = (
    OpenAIOperation("/chat/completions", "chat", "Complete a chat", CHAT, COMPLETION, "ChatCall", STREAM),
    OpenAIOperation(
        "/completions",
        "complete",
        "Complete a text",
        {"model": "smollm2", "prompt": "Once upon a time"},
        _TEXT,
        "CompletionCall",
        _TEXT_STREAM,
    ),
    OpenAIOperation(
        "/embeddings", "embed", "Embed texts", {"model": "bge-m3", "input": ["a mill"]}, _VECTORS, "EmbeddingCall"
    ),
    OpenAIOperation(
        "/images/generations",
        "picture",
        "Make images",
        {"model": "flux", "prompt": "a mill", "n": 1},
        _PICTURE,
        "ImageCall",
        _PICTURE_STREAM,
    ),
)


def paths() -> dict[str, Any]:
    """Describe every route of this door."""
    found: dict[str, Any] = {}
    for prefix in PREFIXES:
        for call in CALLS:
            found[prefix + call.path] = {"post": call_operation(prefix, call)}
        found[f"{prefix}/models"] = {"get": _models(prefix)}
        found[f"{prefix}/models/{{model}}"] = {"get": _model(prefix)}
    return found


def schemas() -> dict[str, Any]:
    """Describe the bodies of this door."""
    text, prompt = {"type": "string"}, {"description": "A string, or a list as the API has it."}
    return {
        "ChatCall": _call_schema("messages", {"type": "array", "items": {"type": "object"}}),
        "CompletionCall": _call_schema("prompt", prompt),
        "EmbeddingCall": _call_schema("input", prompt),
        "ImageCall": _call_schema("prompt", text),
        "AcceptedTask": accepted_schema(),
        "OpenAIError": error_schema(),
        "Model": _model_schema(),
    }


def call_operation(prefix: str, call: OpenAIOperation) -> dict[str, Any]:
    """Describe one call; `call.request` is a JSON body."""
    content: dict[str, Any] = {"application/json": {"example": call.answer}}
    examples = {"held": {"value": call.request}, "async": {"value": call.request | {"async": True}}}
    if call.stream is not None:
        content["text/event-stream"] = {"example": call.stream}
        examples["streamed"] = {"value": call.request | {"stream": True}}
    schema = {"$ref": f"#/components/schemas/{call.schema}"}
    return {
        "operationId": call.name + _suffix(prefix),
        "summary": f"{call.summary}, queued",
        "description": (
            "The call is queued and held until its outcome is there: status, body and content type are the model "
            "server's own, errors included. `stream: true` streams where the API does. `async: true`, taken off before "
            "the body is passed on, is answered with 202 at once. A client that goes away cancels its call, unless it "
            "sent an Idempotency-Key."
        ),
        "parameters": call_parameters(),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}},
        "responses": call_responses(content),
    }


def _models(prefix: str) -> dict[str, Any]:
    listed = {"application/json": {"example": {"object": "list", "data": [MODEL]}}}
    return {
        "operationId": "models" + _suffix(prefix),
        "summary": "List the models",
        "description": "What all model servers list, the first one describing a model that several have.",
        "responses": {"200": {"description": "The models.", "content": listed}, **errors(401, 403, 503)},
    }


def _model(prefix: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Model"}
    place = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "operationId": "model" + _suffix(prefix),
        "summary": "Show a model",
        "parameters": [place | {"description": "Its id, slashes included."}],
        "responses": {
            "200": {
                "description": "The model.",
                "content": {"application/json": {"schema": schema, "example": MODEL}},
            },
            **errors(401, 403, 404, 503),
        },
    }


def _suffix(prefix: str) -> str:
    return "Queued" if prefix == "/queue" else ""


def _call_schema(member: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model", member],
        "properties": {
            "model": {"type": "string", "maxLength": 256, "description": "One that GET /v1/models lists."},
            member: schema,
            "stream": {"type": "boolean", "description": "Answer as server-sent events. Not for embeddings."},
            "async": {"type": "boolean", "description": "Answer 202 at once. The model's setting unless given."},
        },
        "additionalProperties": True,
    }


def _model_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["id", "object", "created", "owned_by", "queue"],
        "properties": {
            "id": text,
            "object": {"const": "model"},
            "created": {"type": "integer", "description": "Epoch seconds."},
            "owned_by": text,
            "queue": text | {"description": "Where calls go that name no queue."},
        },
        "additionalProperties": True,
    }
