"""Fixtures of the dispatcher's tests."""

from __future__ import annotations

import pytest

from tests.support.clocks import SecondClock


@pytest.fixture
def clock() -> SecondClock:
    """Return a clock that the test advances."""
    return SecondClock()
