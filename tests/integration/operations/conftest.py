"""One installation for all commands, whose queues are registered before they are used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from core.kafka.producer import Producer
from tests.support.operators import KEYS, PLAIN, Operators
from tests.support.site import running_site
from tests.support.task_log import task_log


@pytest.fixture(scope="package")
async def operators(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operators]:
    async with AsyncExitStack() as stack:
        folder = tmp_path_factory.mktemp("operations")
        site = await stack.enter_async_context(
            running_site(
                kafka,
                folder,
                keys=KEYS,
                ingress__auto_register=False,
                streams__session_timeout_s=12,
                streams__lease_s=8,
                dispatcher__heartbeat_s=0.5,
            )
        )
        log = await stack.enter_async_context(task_log(site.settings))
        producer = Producer(site.settings, name="operators")
        await producer.start()
        stack.push_async_callback(producer.stop)
        opened = Operators(site, log, producer)
        await opened.run("queues", "register", PLAIN)
        yield opened
