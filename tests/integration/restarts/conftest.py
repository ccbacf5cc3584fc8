"""One installation for what outlives the end of a process; each test leaves all of them running."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.site import Site, keys_file, running_site

KEYS = keys_file(
    "async",
    "batches",
    "cancel",
    "events",
    "idempotency",
    "pair",
    "producers",
    "strangers",
    "workers",
    admins=["admins"],
)


@pytest.fixture(scope="package")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(
        kafka,
        tmp_path_factory.mktemp("restarts"),
        keys=KEYS,
        streams__session_timeout_s=12,
        streams__lease_s=8,
        dispatcher__heartbeat_s=0.5,
        ingress__check_models=False,
    ) as opened:
        yield opened
