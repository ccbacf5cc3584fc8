"""What a completion-messages request asks for. Pure: no Kafka, no clock, no HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from core.errors import InvalidRequest
from ingress.api.dify.errors import DifyError
from ingress.http.request import json_object, not_too_deep
from schemas.json_text import member, values
from schemas.validation import MAX_TEXT

DEFAULT_USER = "DEFAULT-USER"
MODES: dict[object, Literal["blocking", "streaming"]] = {"blocking": "blocking", "streaming": "streaming"}
KINDS = ("image", "document", "audio", "video", "custom")
METHODS = ("remote_url", "local_file")
MAX_URL = 2048
_URL = re.compile(r"https?://[^\s/?#]+\S*", re.IGNORECASE)


class Image(NamedTuple):
    """An image that goes to the model: at an address, or uploaded before."""

    field: str
    """Its place in the request, for errors."""
    url: str | None
    upload_id: str | None


class CompletionRequest(NamedTuple):
    """A request that was read."""

    inputs: dict[str, str | None]
    query: str
    mode: Literal["blocking", "streaming"]
    user: str
    images: list[Image]


def read_ask(body: bytes, *, most_files: int, require_user: bool) -> CompletionRequest:
    """Read the body; raises InvalidRequest and DifyError naming the field."""
    members = json_object(body)
    inputs = members.get("inputs")
    if not isinstance(inputs, dict):
        raise InvalidRequest("inputs is required: an object with at least one pair", field="inputs")
    if not inputs:
        raise InvalidRequest("inputs must hold at least one pair, such as query", field="inputs")
    mode = members.get("response_mode")
    if mode is not None and (not isinstance(mode, str) or mode not in MODES):
        raise InvalidRequest("response_mode must be blocking or streaming", field="response_mode")
    return CompletionRequest(
        inputs=_as_texts(body, members),
        query=_text(members, "query"),
        mode="blocking" if mode is None else MODES[mode],
        user=read_user(members.get("user"), require=require_user),
        images=_images(members.get("files"), most=most_files),
    )


def _as_texts(body: bytes, members: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the inputs as they go into the prompt: what is no string as the JSON that it came as, not rounded."""
    inputs: dict[str, Any] = members["inputs"]
    texts = not_too_deep(lambda: values(member(body, members, "inputs"), inputs), field="inputs")
    return {
        name: value if value is None or isinstance(value, str) else texts[name].decode()
        for name, value in inputs.items()
    }


def read_user(value: object, *, require: bool) -> str:
    """Return the end user; one that names none is DEFAULT-USER unless it is required."""
    if value is not None and not isinstance(value, str):
        raise InvalidRequest("user must be a string", field="user")
    if not value:
        if require:
            raise InvalidRequest("Arg user must be provided.", field="user")
        return DEFAULT_USER
    if len(value) > MAX_TEXT:
        raise InvalidRequest(f"user must be at most {MAX_TEXT} characters", field="user")
    return value


def _images(value: object, *, most: int) -> list[Image]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequest("files must be an array", field="files")
    if len(value) > most:
        raise DifyError(f"at most {most} files (dify.max_files_per_request)", code="too_many_files", field="files")
    return [_image(item, f"files[{number}]") for number, item in enumerate(value)]


def _image(item: object, field: str) -> Image:
    if not isinstance(item, dict):
        raise InvalidRequest(f"{field} must be an object", field=field)
    kind, method = item.get("type"), item.get("transfer_method")
    if kind not in KINDS:
        raise InvalidRequest(f"{field}.type must be one of {', '.join(KINDS)}", field=f"{field}.type")
    if kind != "image":
        raise InvalidRequest(f"{field}.type {kind} cannot be passed to the model; image can", field=f"{field}.type")
    if method not in METHODS:
        raise InvalidRequest(
            f"{field}.transfer_method must be remote_url or local_file", field=f"{field}.transfer_method"
        )
    wanted, other = ("url", "upload_file_id") if method == "remote_url" else ("upload_file_id", "url")
    found = item.get(wanted)
    if not isinstance(found, str) or not found:
        raise InvalidRequest(f"{field}.{wanted} is required with {method}", field=f"{field}.{wanted}")
    if item.get(other):  # clients send the other one as null or ""
        raise InvalidRequest(f"{field}.{other} does not go with {method}", field=f"{field}.{other}")
    if method == "local_file":
        return Image(field, None, found)
    if len(found) > MAX_URL or not _URL.fullmatch(found):
        raise InvalidRequest(
            f"{field}.url must be an http or https URL of at most {MAX_URL} characters", field=f"{field}.url"
        )
    return Image(field, found, None)


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string", field=name)
    return value
