"""Batches with the stock OpenAI SDK, the installed version and the last major one before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.batches_program import PREFIXES, SCENARIOS

pytestmark = pytest.mark.timeout(600)  # the first test here may have to wait for the stack and for all programs


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_sdk_is_content(ran: dict[str, Any], prefix: str, scenario: str) -> None:
    trace = ran["batches"][f"{prefix} {scenario}"]
    assert trace is None, trace
