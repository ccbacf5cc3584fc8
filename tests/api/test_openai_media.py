"""Speech and images with the stock OpenAI SDK, the installed version and the last major one before."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from bench.simulator import Simulator
from tests.api.media_program import LONG, MODEL, PICTURE, PREFIXES, SCENARIOS, SPEECH
from tests.support.sdk_program import report_of
from tests.support.stack import KEY, Stack

PROGRAM = Path(__file__).parent / "media_program.py"


@pytest.fixture(scope="module", params=["newest", "one major before"])
async def ran(request: pytest.FixtureRequest, whole: Stack) -> dict[str, Any]:
    """Run the program once for each version, and return what it reports."""
    found = await report_of(PROGRAM, whole.url, KEY, older=request.param != "newest")
    newest = int(openai.__version__.partition(".")[0])
    assert int(found["version"].partition(".")[0]) == (newest if request.param == "newest" else newest - 1)
    return found


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_sdk_is_content(ran: dict[str, Any], prefix: str, scenario: str) -> None:
    trace = ran["report"][f"{prefix} {scenario}"]
    assert trace is None, trace


async def direct(simulator: Simulator, path: str, files: Any, data: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{simulator.url}{path}", files=files, data=data)


@pytest.mark.parametrize(
    ("path", "files", "data"),
    [
        ("/audio/transcriptions", [("file", ("a.mp3", SPEECH))], {"response_format": "vtt"}),
        ("/audio/transcriptions", [("file", ("long.mp3", LONG))], {"response_format": "json"}),
        ("/audio/translations", [("file", ("a.mp3", SPEECH))], {"response_format": "srt"}),
        ("/images/edits", [("image[]", ("a", PICTURE)), ("image[]", ("b", SPEECH)), ("mask", ("c", PICTURE))],
         {"prompt": "a mill", "n": "3"}),
    ],
    ids=["small", "long", "translation", "images"],
)  # fmt: skip
async def test_answer_and_form_are_those_of_a_direct_call(
    whole: Stack, simulator: Simulator, path: str, files: Any, data: dict[str, str]
) -> None:
    data = {"model": MODEL, **data}
    expected = await direct(simulator, path, files, data)
    async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {KEY}"}) as client:
        found = await client.post(f"{whole.url}/v1{path}", files=files, data=data)
    assert (found.status_code, found.content) == (200, expected.content)
    assert found.headers["content-type"] == expected.headers["content-type"]
    came, sent = (simulator.recent[-1], simulator.recent[-2])
    assert digests(came.body, came.headers["content-type"]) == digests(sent.body, sent.headers["content-type"])


def digests(body: bytes, content_type: str) -> list[str]:
    """Name the parts of a form, heads included, whatever its boundary is."""
    edge = b"--" + content_type.partition("boundary=")[2].encode()
    return sorted(hashlib.sha256(part).hexdigest() for part in body.split(edge))
