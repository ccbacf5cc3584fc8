"""The OpenAI-compatible upstream: which endpoint answers what, and where a request says how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from bench.simulator import answers, media
from bench.simulator.answers import Answer, error
from bench.simulator.behaviour import Behaviour, UnknownBehaviourError, of_members, of_model
from bench.simulator.forms import read_form
from bench.simulator.script import ScriptedServer
from bench.wire import Request

ROUTES: Mapping[str, Callable[[Mapping[str, Any], Behaviour], Answer]] = {
    "/v1/chat/completions": answers.chat,
    "/v1/completions": answers.completion,
    "/v1/embeddings": media.embeddings,
    "/v1/audio/transcriptions": media.transcription,
    "/v1/audio/translations": media.transcription,
    "/v1/audio/speech": media.speech,
    "/v1/images/generations": media.images,
    "/v1/images/edits": media.images,
    "/v1/images/variations": media.images,
}


class Simulator(ScriptedServer):
    """A model server that answers as it is told: `async with Simulator() as simulator`."""

    @property
    def url(self) -> str:
        """The base URL, ending in /v1, that an OpenAI client or `--upstream` takes."""
        return f"{self.root}/v1"

    def plan(self, request: Request) -> tuple[Behaviour, Answer]:
        """Choose by path, then by the member `sim`, then by the model's name."""
        if request.method == "GET" and request.path.startswith("/v1/models"):
            return self.default, _models(request.path)
        build = ROUTES.get(request.path)
        if build is None:
            return self.default, error(404, f"Unknown request URL: {request.method} {request.path}.")
        if request.method != "POST":
            return self.default, error(405, f"{request.path} takes POST.")
        body = read_body(request.headers.get("content-type", ""), request.body)
        behaviour = behaviour_of(body) or self.default
        return behaviour, build(body, behaviour)


def _models(path: str) -> Answer:
    if path == "/v1/models":
        return media.models()
    name = path.removeprefix("/v1/models/")
    if name not in media.MODEL_NAMES:
        return error(404, f"The model `{name}` does not exist.", param="model", code="model_not_found")
    return Answer(body=orjson.dumps(media.model(name)))


def read_body(content_type: str, data: bytes) -> Mapping[str, Any]:
    """Read JSON or a form; raises UnknownBehaviourError when it is neither."""
    if content_type.startswith("multipart/form-data"):
        return read_form(content_type, data)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as broken:
        raise UnknownBehaviourError(f"The body is no JSON: {broken}.", param="body") from broken
    if not isinstance(body, dict):
        raise UnknownBehaviourError("The body must be an object.", param="body")
    return body


def behaviour_of(body: Mapping[str, Any]) -> Behaviour | None:
    """Find the behaviour that a request asks for, if it asks."""
    asked = body.get("sim")
    if isinstance(asked, str):
        # A form has no objects: its field holds the JSON text.
        try:
            asked = orjson.loads(asked)
        except orjson.JSONDecodeError as broken:
            raise UnknownBehaviourError(f"sim is no JSON: {broken}.", param="sim") from broken
    if asked is not None:
        return of_members(asked)
    model = body.get("model")
    return of_model(model) if isinstance(model, str) else None
