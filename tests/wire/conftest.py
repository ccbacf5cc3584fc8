"""An ingress over parts in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings import IngressSettings, Settings, StorageSettings
from tests.support.bella import Double
from tests.support.memory_ingress import ingress_in_memory


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Double]:
    settings = Settings(
        data_dir=tmp_path,
        ingress=IngressSettings(max_body_bytes=20_000, max_waiting=2, keep_alive_s=0.05),
        storage=StorageSettings(inline_bytes=4_096),
    )
    async with ingress_in_memory(settings) as double:
        yield double
