"""What the folders with a site share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.site import Site
from tests.support.task_log import TaskLog, task_log


@pytest.fixture(scope="module")
async def log(site: Site) -> AsyncIterator[TaskLog]:
    """Follow what becomes of the tasks of a module, at the site of its folder."""
    async with task_log(site.settings) as opened:
        yield opened
