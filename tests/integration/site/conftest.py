"""One installation for everything here: each module has a tenant and queues of its own, and stops no process."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest

from tests.support.site import Site, keys_file, running_site

KEYS = keys_file(
    "async",
    "batches",
    "cancel",
    "direct",
    "events",
    "examples",
    "idempotency",
    "producers",
    "strangers",
    "workers",
    admins=["admins"],
)


@pytest.fixture(scope="package")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(
        kafka,
        tmp_path_factory.mktemp("site"),
        keys=KEYS,
        streams__session_timeout_s=12,
        dispatcher__heartbeat_s=0.5,
        ingress__keep_alive_s=0.5,
        ingress__check_models=False,
        webhooks__allow_private=True,
        webhooks__secret=[f"whsec_{base64.b64encode(bytes(range(32))).decode()}"],
        direct__default_tenant="direct",
        direct__reply_topics=["replies-*"],
        direct__secrets=["0123456789abcdef"],
    ) as opened:
        yield opened
