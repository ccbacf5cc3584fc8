"""Answers of completion-messages to the byte, and what is read out of the upstream's. Pure: no Kafka, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from core import lenient_json
from core.errors import InvalidRequest
from core.upstream_errors import reason_of, reported
from ingress.http.errors import ApiProblem
from ingress.http.sse import frame
from schemas.common import Usage
from schemas.ids import TaskId
from schemas.records import Result

ENDPOINT = "/v1/chat/completions"
FAILED = "completion_request_error"


class Message(NamedTuple):
    """One message: the task's UUID is its id too, so that either leads back to the task."""

    id: str
    created_at: int
    """Epoch seconds."""

    @classmethod
    def of(cls, task_id: TaskId) -> Message:
        """Name the message of a task."""
        return cls(task_id.uuid(), task_id.time_s)

    def blocking(self, answer: str, usage: Mapping[str, Any]) -> bytes:
        """Render the answer of a blocking request."""
        return orjson.dumps(
            {
                "event": "message",
                "task_id": self.id,
                "id": self.id,
                "message_id": self.id,
                "mode": "completion",
                "answer": answer,
                "metadata": {"usage": usage, "retriever_resources": []},
                "created_at": self.created_at,
            }
        )

    def piece(self, text: str) -> bytes:
        """Render a piece of the answer as a frame."""
        return frame(orjson.dumps({"event": "message", **self._common(), "answer": lenient_json.joined(text)}))

    def end(self, usage: Mapping[str, Any]) -> bytes:
        """Render the last frame of a stream that ended well."""
        metadata = {"usage": usage, "retriever_resources": []}
        return frame(orjson.dumps({"event": "message_end", **self._common(), "metadata": metadata, "files": None}))

    def error(self, problem: ApiProblem) -> bytes:
        """Render the last frame of a stream that did not; it has no task_id."""
        return frame(
            orjson.dumps(
                {
                    "event": "error",
                    "message_id": self.id,
                    "created_at": self.created_at,
                    "status": problem.status,
                    "code": problem.code,
                    "message": problem.message,
                }
            )
        )

    def _common(self) -> dict[str, Any]:
        return {"task_id": self.id, "id": self.id, "message_id": self.id, "created_at": self.created_at}


class MessagePart(NamedTuple):
    """One body or chunk of the upstream."""

    text: str
    usage: Usage | None
    error: Mapping[str, Any] | None = None


def upstream_body(model: str, prompt: str, images: Sequence[str], *, streaming: bool) -> bytes:
    """Build the chat completion to ask for; a stream is asked for its usage, too, for message_end."""
    content: Any = prompt
    if images:
        content = [{"type": "text", "text": prompt}, *({"type": "image_url", "image_url": {"url": u}} for u in images)]
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}], "stream": streaming}
    if streaming:
        body["stream_options"] = {"include_usage": True}
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise InvalidRequest("inputs holds text that is not valid Unicode", field="inputs") from None


def read_part(body: bytes) -> MessagePart | None:
    """Read a chat completion or one chunk of it; None when it is neither. Its text may end in half a character."""
    members = lenient_json.document(body)
    if not isinstance(members, dict):
        return None
    if reported(members) is not None:
        return MessagePart("", None, error_of(body))
    choices = members.get("choices")
    if not isinstance(choices, list):
        return None
    first = choices[0] if choices and isinstance(choices[0], dict) else {}
    message = first.get("message") or first.get("delta")
    return MessagePart(
        _content(message.get("content")) if isinstance(message, dict) else "", _usage(members.get("usage"))
    )


def error_of(body: bytes | None) -> Mapping[str, Any] | None:
    """Return the error object of an upstream's body, its reason as the member `message`; None when there is none."""
    members = lenient_json.document(body)
    if (reason := reason_of(members)) is None:
        return None
    error = members.get("error") if isinstance(members, dict) else None
    return {**(error if isinstance(error, dict) else {}), "message": reason}


def failed(result: Result | None, error: Mapping[str, Any] | None, message: str) -> ApiProblem:
    """Describe why the call has no answer, with a code of this dialect."""
    status = result["status_code"] if result is not None and result["error_code"] == "upstream_error" else 0
    error = error or {}
    named = (error.get("code"), error.get("type"))
    code = FAILED
    if status in (401, 403):
        code = "provider_not_initialize"
    elif status == 402 or "insufficient_quota" in named:
        code = "provider_quota_exceeded"
    elif status == 404 or "model_not_found" in named:
        code = "model_currently_not_support"
    own = error.get("message")
    return ApiProblem(400, code, own if isinstance(own, str) and own else message)


def _content(content: object) -> str:
    """Return the text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _usage(counts: object) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    prompt, completion = _count(counts, "prompt_tokens"), _count(counts, "completion_tokens")
    total = _count(counts, "total_tokens") or prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
