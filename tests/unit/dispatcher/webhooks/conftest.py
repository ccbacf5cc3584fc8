"""A delivery worker, and a receiver of its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.receiver import receiver
from tests.support.webhook_bench import WebhookBench

__all__ = ["receiver"]


@pytest.fixture
async def bench() -> AsyncIterator[WebhookBench]:
    made = WebhookBench()
    yield made
    await made.client.close()
