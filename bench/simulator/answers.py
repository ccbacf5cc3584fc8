"""Right answers: a deterministic function of the request, in the shapes of the OpenAI API.

Two equal requests get equal bytes (ids and times included), so a test can compare what came through with a direct call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from bench.simulator.behaviour import Behaviour

CREATED = 1_700_000_000
JSON = "application/json"
SSE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
WORDS = ("river", "mill", "wheel", "sluice", "gate", "water", "stone", "turn", "flow", "head", "race", "pond", "weir")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent: a body, or the frames of an event stream."""

    status: int = 200
    content_type: str = JSON
    body: bytes = b""
    padding: int = 0
    """Bytes of filler that belong before the last byte of the body."""
    frames: list[bytes] = field(default_factory=list)
    headers: str = ""
    """Further header lines, each with its line end."""


def digest(value: object) -> str:
    """Name a JSON value by 16 hex digits; the order of members does not matter."""
    return hashlib.blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def pieces(mark: str, count: int) -> list[str]:
    """Give the words of an answer: the digest of the question, then filler that follows from it."""
    start = int(mark[:4], 16)
    return [mark, *(f" {WORDS[(start + i) % len(WORDS)]}" for i in range(1, count))]


def text_for(value: object, tokens: int = 8) -> str:
    """Give the text that the simulator answers to these messages (or prompt, or input)."""
    return "".join(pieces(digest(value), tokens))


def error(status: int, message: str, *, param: str | None = None, code: str | None = None, headers: str = "") -> Answer:
    """Build an error answer in the OpenAI form."""
    kind = {429: "rate_limit_error", 401: "authentication_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    body = orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
    return Answer(status=status, body=body, headers=headers)


def failure(behaviour: Behaviour) -> Answer:
    """Build the answer of a behaviour whose status is not a success."""
    retry = behaviour.retry_after
    if isinstance(retry, float):
        retry = f"{retry:g}"
    headers = "" if retry is None else f"retry-after: {retry}\r\n"
    code = "rate_limit_exceeded" if behaviour.status == 429 else None
    return error(behaviour.status, f"The simulator was told to answer {behaviour.status}.", code=code, headers=headers)


def redirection(behaviour: Behaviour, path: str) -> Answer:
    """Build a redirect to the behaviour's location, else back to the very same path."""
    status = behaviour.status if behaviour.status in {301, 302, 303, 307, 308} else 307
    return Answer(status=status, content_type="text/plain", headers=f"location: {behaviour.location or path}\r\n")


def padded(body: bytes, size: int) -> Answer:
    """Wrap a JSON object; a member `padding` brings it to exactly `size` bytes when it is smaller."""
    frame = b',"padding":""'
    missing = size - len(body) - len(frame)
    if missing <= 0:
        return Answer(body=body)
    return Answer(body=body[:-1] + frame[:-1] + b'"}', padding=missing)


def stream(events: list[dict[str, Any]], behaviour: Behaviour, *, done: bool = True) -> Answer:
    """Wrap the events of a stream as SSE frames, the padding shared out among them."""
    bodies = [orjson.dumps(event) for event in events]
    share = behaviour.size // len(bodies)
    frames = [b"data: %b\n\n" % whole(padded(body, share - len(b"data: \n\n"))) for body in bodies]
    return Answer(content_type=SSE, frames=[*frames, DONE] if done else frames)


def whole(answer: Answer) -> bytes:
    """Give the complete body of an answer as one piece."""
    if answer.frames:
        return b"".join(answer.frames)
    if not answer.padding:
        return answer.body
    return answer.body[:-2] + b"x" * answer.padding + answer.body[-2:]


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Tell whether a stream is to end with a usage frame."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def usage(question: object, tokens: int) -> dict[str, int]:
    """Count tokens: a quarter of the question's bytes, and the words of the answer."""
    prompt = max(1, len(orjson.dumps(question)) // 4)
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def chat(body: Mapping[str, Any], behaviour: Behaviour) -> Answer:
    """Answer POST /v1/chat/completions."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return error(400, "messages must be a list.", param="messages")
    mark, model = digest(messages), body.get("model")
    words = pieces(mark, behaviour.tokens)
    if body.get("stream") is True:
        return stream(_chat_events(body, behaviour, mark=mark, words=words), behaviour)
    message = {
        "role": "assistant",
        "content": "".join(words),
        "reasoning_content": f"Considering {mark}.",
        "tool_calls": [],
        **(behaviour.message or {}),
    }
    answer = {
        "id": f"chatcmpl-{mark}",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(messages, behaviour.tokens),
        "system_fingerprint": "fp_simulator",
    }
    return padded(orjson.dumps(answer), behaviour.size)


def _chat_events(body: Mapping[str, Any], behaviour: Behaviour, *, mark: str, words: list[str]) -> list[dict[str, Any]]:
    base = {
        "id": f"chatcmpl-{mark}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": body.get("model"),
        "system_fingerprint": "fp_simulator",
    }
    first = {"role": "assistant", "content": "", "reasoning_content": f"Considering {mark}.", "tool_calls": []}
    deltas: list[dict[str, Any]] = [{**first, **(behaviour.message or {})}]
    deltas += [{"content": word, "reasoning_content": None} for word in words]
    deltas.append({})
    ends = [None] * (len(deltas) - 1) + ["stop"]
    events = [
        {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]}
        for delta, end in zip(deltas, ends, strict=True)
    ]
    return _with_usage(events, base, body, usage(body.get("messages"), behaviour.tokens))


def _with_usage(
    events: list[dict[str, Any]], base: dict[str, Any], body: Mapping[str, Any], counts: dict[str, int]
) -> list[dict[str, Any]]:
    if not wants_usage(body):
        return events
    return [*({**event, "usage": None} for event in events), {**base, "choices": [], "usage": counts}]


def completion(body: Mapping[str, Any], behaviour: Behaviour) -> Answer:
    """Answer POST /v1/completions."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list):
        return error(400, "prompt must be a string or a list.", param="prompt")
    mark = digest(prompt)
    words = pieces(mark, behaviour.tokens)
    base = {"id": f"cmpl-{mark}", "object": "text_completion", "created": CREATED, "model": body.get("model")}
    counts = usage(prompt, behaviour.tokens)
    if body.get("stream") is True:
        ends = [None] * (len(words) - 1) + ["stop"]
        events = [
            {**base, "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": end}]}
            for word, end in zip(words, ends, strict=True)
        ]
        return stream(_with_usage(events, base, body, counts), behaviour)
    choice = {"index": 0, "text": "".join(words), "logprobs": None, "finish_reason": "stop"}
    return padded(orjson.dumps({**base, "choices": [choice], "usage": counts}), behaviour.size)
