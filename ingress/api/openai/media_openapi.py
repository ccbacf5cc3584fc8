"""The forms of the OpenAI mirror as OpenAPI."""

from __future__ import annotations

from typing import Any, NamedTuple

from ingress.api.openai.media import AUDIO, PREFIXES
from ingress.api.openai.openapi_parts import call_parameters, call_responses, errors

TEXT = {"type": "string"}
FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
FLAG = {"enum": ["true", "false", "1", "0"]}
SRT = "1\n00:00:00,000 --> 00:00:02,000\nThe river turns the wheel.\n"
SPOKEN = {"text": "The river turns the wheel."}
SPOKEN_STREAM = (
    'data: {"type":"transcript.text.delta","delta":"The river"}\n\n'
    'data: {"type":"transcript.text.done","text":"The river turns the wheel."}\n\n'
    "data: [DONE]\n\n"
)
EDITED = {"created": 1_769_860_805, "data": [{"b64_json": "iVBORw0KGgo…"}]}
EDITED_STREAM = (
    'event: image_edit.completed\ndata: {"type":"image_edit.completed","b64_json":"iVBORw0KGgo…"}\n\ndata: [DONE]\n\n'
)


class MediaOperation(NamedTuple):
    """What is said of one call with a form."""

    name: str
    summary: str
    schema: str
    content: dict[str, Any]


_SPOKEN = {"application/json": {"example": SPOKEN}, "text/plain": {"example": SRT}}
CALLS = {
    "/audio/transcriptions": MediaOperation(
        "transcribe",
        "Write down speech",
        "TranscriptionForm",
        _SPOKEN | {"text/event-stream": {"example": SPOKEN_STREAM}},
    ),
    "/audio/translations": MediaOperation("translate", "Translate speech to English", "TranslationForm", _SPOKEN),
    "/images/edits": MediaOperation(
        "edit",
        "Edit images",
        "EditForm",
        {"application/json": {"example": EDITED}, "text/event-stream": {"example": EDITED_STREAM}},
    ),
}


def paths() -> dict[str, Any]:
    """Describe every route of these calls."""
    return {
        f"{prefix}{path}": {"post": _operation(prefix, call)} for prefix in PREFIXES for path, call in CALLS.items()
    }


def schemas() -> dict[str, Any]:
    """Describe the forms."""
    audio = {"file": FILE | {"description": f"One of {', '.join(AUDIO)}, by its name or its type."}}
    images = {
        "image": FILE | {"description": "The image; several as repeated `image[]`."},
        "image[]": {"type": "array", "items": FILE},
        "mask": FILE,
        "prompt": TEXT,
    }
    stream = {"stream": FLAG | {"description": "Answer as server-sent events."}}
    return {
        "TranscriptionForm": _form(("file", "model"), audio | stream),
        "TranslationForm": _form(("file", "model"), audio),
        "EditForm": _form(("prompt", "model"), images | stream),
    }


def _operation(prefix: str, call: MediaOperation) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{call.schema}"}
    return {
        "operationId": call.name + ("Queued" if prefix == "/queue" else ""),
        "summary": f"{call.summary}, queued",
        "description": (
            "A form, kept in the object store while it arrives; its fields are passed on as they are, but for `async` "
            "and `stream`. The call is held as any other: status, body and content type are the model server's own, so "
            "`response_format` decides between JSON, text and subtitles. All files together may have "
            "ingress.max_upload_bytes."
        ),
        "parameters": call_parameters(),
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
        "responses": {**call_responses(call.content), **errors(415)},
    }


def _form(required: tuple[str, ...], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {
            **properties,
            "model": {"type": "string", "maxLength": 256, "description": "One that GET /v1/models lists."},
            "async": FLAG | {"description": "Answer 202 at once. The model's setting unless given."},
        },
        "additionalProperties": True,
    }
