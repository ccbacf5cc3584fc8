"""An ingress over parts in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings.models import Settings
from tests.support.bella import Double
from tests.support.memory_ingress import ingress_in_memory
from tests.support.task_frames import Story

USUAL = {
    "ingress": {"max_body_bytes": 20_000, "max_blocking_requests": 2, "keep_alive_s": 0.05},
    "storage": {"inline_bytes": 4_096},
}


@pytest.fixture
async def ingress(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Double]:
    """Give the ingress and a client of it; a module that needs other settings names them as SETTINGS."""
    sections = getattr(request.module, "SETTINGS", USUAL)
    async with ingress_in_memory(Settings.model_validate({"data_dir": tmp_path, **sections})) as double:
        yield double


@pytest.fixture
def story(ingress: Double) -> Story:
    """Give one task and what becomes of it."""
    return Story(*ingress)
