"""Batches with the stock OpenAI SDK, the installed version and the last major one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.api.batches_program import SCENARIOS
from tests.support.sdk_program import report_of
from tests.support.stack import KEY, Stack

PROGRAM = Path(__file__).parent / "batches_program.py"


@pytest.fixture(scope="module", params=["newest", "one major before"])
async def ran(request: pytest.FixtureRequest, whole: Stack) -> dict[str, Any]:
    """Run the program once for each version, and return what it reports."""
    found = await report_of(PROGRAM, whole.url, KEY, older=request.param != "newest")
    newest = int(openai.__version__.partition(".")[0])
    assert int(found["version"].partition(".")[0]) == (newest if request.param == "newest" else newest - 1)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_sdk_is_content(ran: dict[str, Any], scenario: str) -> None:
    trace = ran["report"][scenario]
    assert trace is None, trace
