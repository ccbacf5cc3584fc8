"""Wait until every part of a stack answers 200."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

POLL_S = 0.1
FIRST_REMINDER_S, LONGEST_REMINDER_S = 10.0, 60.0  # how long nothing may be heard of a start
HTTP_TIMEOUT_S = 5.0
BODY_BYTES = 2000


async def until_ok(checks: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Return when every URL has answered 200 once.

    There is no end to the patience: what is missing may be outside, such as a model server that is still loading, and
    a stack that has accepted tasks must not go because of it. A part that dies instead ends the start elsewhere.

    Args:
        checks: name → URL.
        say: told from time to time what is waited for.
    """
    left = dict(checks)
    pause_s = FIRST_REMINDER_S
    remind = time.monotonic() + pause_s
    while True:
        answers = {name: await asyncio.to_thread(get, url) for name, url in left.items()}
        left = {name: url for name, url in left.items() if answers[name][0] != HTTPStatus.OK}
        if not left:
            return
        if time.monotonic() > remind:
            say("waiting for " + "; ".join(f"{name}: {reason(answers[name][1])}" for name in left))
            pause_s = min(2 * pause_s, LONGEST_REMINDER_S)
            remind = time.monotonic() + pause_s
        await asyncio.sleep(POLL_S)


def reason(body: str) -> str:
    """Return what a probe's answer says is missing, in words."""
    try:
        return ", ".join(json.loads(body)["missing"])
    except (ValueError, KeyError, TypeError):
        return body


def get(url: str) -> tuple[int, str]:
    """Return the status, 0 for no answer, and the beginning of the body or of the error."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HTTP_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", parts.path)
            response = connection.getresponse()
            return response.status, response.read(BODY_BYTES).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
