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
FIRST_REMINDER_S, LONGEST_REMINDER_S = 10.0, 60.0  # interval of progress reports, seconds
HTTP_TIMEOUT_S = 5.0
BODY_BYTES = 2000


async def until_ok(checks: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Wait until every URL has answered 200 once.

    There is no timeout: an external part, such as a model server that is still loading, may be missing, and a stack
    that has accepted tasks must not stop because of it. A process that exits instead ends the start elsewhere.

    Args:
        checks: name → URL.
        say: called from time to time with what is missing.
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
    """Return a description of what a probe reports as missing."""
    try:
        return ", ".join(json.loads(body)["missing"])
    except (ValueError, KeyError, TypeError):
        return body


def get(url: str) -> tuple[int, str]:
    """Return the status, 0 for no response, and the start of the body or of the error."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HTTP_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", parts.path)
            response = connection.getresponse()
            return response.status, response.read(BODY_BYTES).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error) or type(error).__name__
