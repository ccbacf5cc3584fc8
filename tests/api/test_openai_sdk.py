"""The stock OpenAI SDK, the installed version and the last major one before, through every route of the mirror."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from bench.simulator import Simulator
from bench.simulator.stats import KeyStats
from tests.api.openai_program import PREFIXES, SCENARIOS
from tests.support.older_sdk import older_sdk
from tests.support.stack import KEY, Stack

PROGRAM = Path(__file__).parent / "openai_program.py"
PROGRAM_S = 120


@pytest.fixture(scope="module", params=["newest", "one major before"])
async def ran(request: pytest.FixtureRequest, whole: Stack) -> dict[str, Any]:
    """Run the program once for each version, and return what it reports."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    if request.param != "newest":
        env["PYTHONPATH"] = str(await asyncio.to_thread(older_sdk))
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, whole.url, KEY,
        env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PROGRAM_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    major = int(found["version"].partition(".")[0])
    newest = int(openai.__version__.partition(".")[0])
    assert major == (newest if request.param == "newest" else newest - 1)
    return found


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_sdk_is_content(ran: dict[str, Any], prefix: str, scenario: str) -> None:
    trace = ran["report"][f"{prefix} {scenario}"]
    assert trace is None, trace


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_what_the_model_server_saw(ran: dict[str, Any], simulator: Simulator, prefix: str) -> None:
    """A wait that was over is not sent again, a stream that is given up is closed, an async call is made."""

    def seen(scenario: str) -> KeyStats:
        return simulator.stats.keys.get(f"{scenario} {ran['version']} {prefix.strip('/')}", KeyStats())

    await simulator.until(lambda: seen("accepted").completed == 1)
    await simulator.until(lambda: len(seen("given_up").disconnect_ms) == 1)
    await simulator.until(lambda: seen("wait_exceeded").completed == 1)
    assert {seen(scenario).arrivals for scenario in ("accepted", "given_up", "wait_exceeded")} == {1}
