"""Speech and images with the stock OpenAI SDK, the installed version and the last major one before."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import httpx
import pytest

from bench.simulator import Simulator
from bench.wire import Request
from tests.api.media_program import LONG, MODEL, PICTURE, PREFIXES, SCENARIOS, SPEECH
from tests.support.stack import KEY, Stack, call_of

PATIENCE_S = 60

pytestmark = pytest.mark.timeout(600)  # the first test here may have to wait for the stack and for all programs


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_sdk_is_content(ran: dict[str, Any], prefix: str, scenario: str) -> None:
    trace = ran["media"][f"{prefix} {scenario}"]
    assert trace is None, trace


async def direct(simulator: Simulator, path: str, files: Any, data: Any) -> tuple[httpx.Response, Request]:
    """Call the model server itself; return its answer, and the request as it came."""
    name = f"direct {time.time_ns()}"
    async with httpx.AsyncClient(timeout=PATIENCE_S, headers={"x-task-id": name}) as client:
        answer = await client.post(f"{simulator.url}{path}", files=files, data=data)
    return answer, call_of(simulator, name)


@pytest.mark.parametrize(
    ("path", "files", "data"),
    [
        ("/audio/transcriptions", [("file", ("a.mp3", SPEECH))], {"response_format": "vtt"}),
        ("/audio/transcriptions", [("file", ("long.mp3", LONG))], {"response_format": "json"}),
        ("/audio/translations", [("file", ("a.mp3", SPEECH))], {"response_format": "srt"}),
        (
            "/images/edits",
            [("image[]", ("a", PICTURE)), ("image[]", ("b", SPEECH)), ("mask", ("c", PICTURE))],
            {"prompt": "a mill", "n": "3"},
        ),
    ],
    ids=["small", "long", "translation", "images"],
)
async def test_answer_and_form_are_those_of_a_direct_call(
    whole: Stack, simulator: Simulator, path: str, files: Any, data: dict[str, str]
) -> None:
    data = {"model": MODEL, **data}
    expected, sent = await direct(simulator, path, files, data)
    async with httpx.AsyncClient(timeout=PATIENCE_S, headers={"Authorization": f"Bearer {KEY}"}) as client:
        found = await client.post(f"{whole.url}/v1{path}", files=files, data=data)
    assert (found.status_code, found.content) == (200, expected.content)
    assert found.headers["content-type"] == expected.headers["content-type"]
    came = call_of(simulator, found.headers["x-task-id"])
    assert digests(came.body, came.headers["content-type"]) == digests(sent.body, sent.headers["content-type"])


def digests(body: bytes, content_type: str) -> list[str]:
    """Name the parts of a form, heads included, whatever its boundary is."""
    edge = b"--" + content_type.partition("boundary=")[2].encode()
    return sorted(hashlib.sha256(part).hexdigest() for part in body.split(edge))
