"""Parse and validate the body of a batch creation. Pure: no clock, no HTTP."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from core.errors import InvalidRequest
from ingress.http.request import check_members, json_object, not_too_deep
from schemas.callback_url import CallbackPolicy
from schemas.json_text import member, read_json
from schemas.validation import Invalid, check_callback

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations")
MIN_WINDOW_S, MAX_WINDOW_S = 24 * 3_600, 336 * 3_600
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
MAX_REPLACE = 32_768
"""Bytes: it is part of the batch row, which is rewritten with every step of the batch."""
MAX_ID = 128
CALLBACK, EXPIRES = "callback_url", "output_expires_after"
MEMBERS = ("input_file_id", "endpoint", "completion_window", "metadata", "replace", EXPIRES)
MIN_EXPIRES_S, MAX_EXPIRES_S = 3_600, 2_592_000
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")


class BatchRequest(NamedTuple):
    """One validated request."""

    input_file_id: str
    endpoint: str
    completion_window: str
    window_s: int
    metadata: dict[str, str]
    replace: bytes | None
    callback_url: str | None
    output_expires_s: int | None = None


def parse_batch_request(body: bytes, *, short_windows: bool, callbacks: CallbackPolicy) -> BatchRequest:
    """Parse the body; raises InvalidRequest naming the member."""
    members = json_object(body)
    check_members(members, MEMBERS, of="a batch")
    metadata = _metadata(members.get("metadata"))
    window = _text(members, "completion_window")
    return BatchRequest(
        input_file_id=_text(members, "input_file_id"),
        endpoint=_endpoint(_text(members, "endpoint")),
        completion_window=window,
        window_s=window_s(window, short=short_windows),
        metadata=metadata,
        replace=_replace(body, members),
        callback_url=_callback(metadata.get(CALLBACK), callbacks),
        output_expires_s=_expires_s(members.get(EXPIRES)),
    )


def window_s(text: str, *, short: bool) -> int:
    """Return the seconds of a completion window; raises InvalidRequest."""
    match = _WINDOW.fullmatch(text)
    seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
    usual = match is not None and match[2] in "hd" and seconds >= MIN_WINDOW_S
    if not (usual or (short and seconds)) or seconds > MAX_WINDOW_S:
        usually = "whole hours from 24h to 336h, or days from 1d to 14d"
        allowed = "a time from 1s to 336h, such as 90s, 5m, 24h or 7d" if short else usually
        raise InvalidRequest(f"completion_window must be {allowed}", field="completion_window")
    return seconds


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None or value == "":
        raise InvalidRequest(f"{name} is required", field=name)
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise InvalidRequest(f"{name} must be a string of at most {MAX_ID} characters", field=name)
    return value


def _endpoint(path: str) -> str:
    if path not in ENDPOINTS:
        raise InvalidRequest(f"endpoint must be one of {', '.join(ENDPOINTS)}", field="endpoint")
    return path


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("metadata must be an object of strings", field="metadata")
    if len(value) > MAX_PAIRS:
        raise InvalidRequest(f"metadata must have at most {MAX_PAIRS} pairs", field="metadata")
    for key, text in value.items():
        if len(key) > MAX_KEY:
            raise InvalidRequest(f"a key of metadata must be at most {MAX_KEY} characters", field="metadata")
        if not isinstance(text, str) or len(text) > MAX_VALUE:
            raise InvalidRequest(
                f"metadata.{key} must be a string of at most {MAX_VALUE} characters", field=f"metadata.{key}"
            )
    return value


def _replace(body: bytes, members: dict[str, Any]) -> bytes | None:
    value = members.get("replace")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidRequest("replace must be an object", field="replace")
    text = not_too_deep(lambda: member(body, members, "replace"), field="replace")
    if len(text) > MAX_REPLACE:
        raise InvalidRequest(f"replace must be at most {MAX_REPLACE} bytes", field="replace")
    return text if value else None


def _callback(url: str | None, allowed: CallbackPolicy) -> str | None:
    if url is None:
        return None
    try:
        check_callback(url, allowed)
    except Invalid as error:
        raise InvalidRequest(f"metadata.{error.message}", field=f"metadata.{CALLBACK}") from None
    return url


def _expires_s(value: object) -> int | None:
    """Parse how long the files of the batch are stored after its end; raises InvalidRequest."""
    if value is None:
        return None
    members = value if isinstance(value, dict) else {}
    seconds = members.get("seconds")
    anchored = members.get("anchor") == "created_at" and len(members) == 2
    if not anchored or type(seconds) is not int or not MIN_EXPIRES_S <= seconds <= MAX_EXPIRES_S:
        raise InvalidRequest(
            f"{EXPIRES} must be an object with the anchor created_at and seconds from {MIN_EXPIRES_S} to "
            f"{MAX_EXPIRES_S}",
            field=EXPIRES,
        )
    return seconds


def model_of(replace: bytes | None) -> str | None:
    """Return the model of all lines of a batch, when its `replace` names one."""
    model = None if replace is None else read_json(replace).get("model")
    return model if isinstance(model, str) else None
