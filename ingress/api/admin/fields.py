"""What administrators send, read with care: every wrong member or parameter is named. Pure but for the request."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.responses import Response

from core.errors import InvalidRequest
from ingress.http.json_body import json_object

MAX_BODY = 65_536
LEVELS: dict[object, int] = {"0": 0, "1": 1, "online": 0, "offline": 1, 0: 0, 1: 1}
MAX_WAIT_S = 60


class JsonFields:
    """The members of a body, each of one kind; raises InvalidRequest naming the one that is wrong."""

    def __init__(self, body: bytes, names: Collection[str]) -> None:
        self._given: dict[str, Any] = json_object(body) if body.strip() else {}
        for name in self._given:
            if name not in names:
                raise InvalidRequest(f"there is no member {name[:40]}; there are {', '.join(names)}", field=name[:40])

    def __contains__(self, name: str) -> bool:
        return self._given.get(name) is not None

    def integer(self, name: str, low: int, high: int) -> int | None:
        """Read a whole number."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidRequest(f"{name} must be a whole number from {low} to {high}", field=name)
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool | None:
        """Read a truth value."""
        value = self._given.get(name)
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(f"{name} must be true or false", field=name)
        return default if value is None else value

    def text(self, name: str, longest: int = 256) -> str | None:
        """Read a text."""
        value = self._given.get(name)
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= longest):
            raise InvalidRequest(f"{name} must be a text of 1 to {longest} characters", field=name)
        return value

    def texts(self, name: str, most: int, longest: int = 64) -> list[str] | None:
        """Read a list of texts."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise InvalidRequest(f"{name} must be a list of 1 to {most} texts", field=name)
        if not all(isinstance(one, str) and len(one) <= longest for one in value):
            raise InvalidRequest(f"{name} must hold texts of at most {longest} characters", field=name)
        return value

    def level(self) -> int | None:
        """Read a level by number or name."""
        value = self._given.get("level")
        return None if value is None else level_of(value)

    def wait_s(self, default: int) -> int:
        """Read how long the caller waits."""
        value = self.integer("wait_s", 0, MAX_WAIT_S)
        return default if value is None else value


def level_of(value: object) -> int:
    """Read a level."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in LEVELS:
        raise InvalidRequest("level must be 0 (online) or 1 (offline)", field="level")
    return LEVELS[value]


def parameters(given: Iterable[tuple[str, str]], names: Collection[str]) -> dict[str, str]:
    """Read the parameters of a query, each at most once."""
    found: dict[str, str] = {}
    for name, value in given:
        if name not in names:
            raise InvalidRequest(f"there is no parameter {name[:40]}; there are {', '.join(names)}", field=name[:40])
        if name in found:
            raise InvalidRequest(f"{name} was given twice", field=name)
        found[name] = value
    return found


def limit_of(text: str | None, default: int, most: int) -> int:
    """Read how many a page may hold."""
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit must be a whole number from 1 to {most}", field="limit")
    return int(text)


def time_of(text: str, name: str) -> int:
    """Read a time as ISO 8601, in UTC unless it says otherwise; returns epoch milliseconds."""
    try:
        at = datetime.fromisoformat(text)
        found = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        found = math.nan
    if not found >= 0:
        raise InvalidRequest(f"{name} must be a time such as 2026-01-31T12:00:00Z", field=name)
    return round(found * 1000)


def answer(body: dict[str, Any], status: int = 200) -> Response:
    """Render an answer."""
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)
