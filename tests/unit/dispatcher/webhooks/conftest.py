"""The courier with a world around it, and a receiver of its callbacks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.receiver import Receiver
from tests.unit.dispatcher.webhooks.test_outages import World


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.poster.close()
