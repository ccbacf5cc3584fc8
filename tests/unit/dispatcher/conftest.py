"""What the tests of the dispatcher share."""

from __future__ import annotations

import pytest

from tests.support.clocks import SecondClock


@pytest.fixture
def clock() -> SecondClock:
    """Give a clock that the test moves."""
    return SecondClock()
