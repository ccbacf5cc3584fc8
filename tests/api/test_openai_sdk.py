"""The stock OpenAI SDK, the installed version and the last major one before, through every route of the mirror."""

from __future__ import annotations

from typing import Any

import pytest

from bench.simulator import Simulator
from bench.simulator.stats import KeyStats
from tests.api.openai_program import PREFIXES, SCENARIOS
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.timeout(600)  # the first test here may have to wait for the stack and for all programs


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_sdk_is_content(ran: dict[str, Any], prefix: str, scenario: str) -> None:
    trace = ran["openai"][f"{prefix} {scenario}"]
    assert trace is None, trace


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_what_the_model_server_saw(ran: dict[str, Any], simulator: Simulator, prefix: str) -> None:
    """A wait that was over is not sent again, a stream that is given up is closed, an async call is made."""

    def seen(scenario: str) -> KeyStats:
        return simulator.stats.keys.get(f"{scenario} {ran['version']} {prefix.strip('/')}", KeyStats())

    await eventually_async(lambda: seen("accepted").completed == 1, what="the end of the async call")
    await eventually_async(lambda: len(seen("given_up").disconnect_ms) == 1, what="the end of the stream")
    await eventually_async(lambda: seen("wait_exceeded").completed == 1, what="the end of the call nobody waits for")
    assert {seen(scenario).arrivals for scenario in ("accepted", "given_up", "wait_exceeded")} == {1}
