"""For each module an upstream, settings, topics, a probe, and a dispatcher where the tests are not about its start."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings.models import Settings
from tests.support.dispatcher_probe import Dispatcher, DispatcherProbe, dispatcher_probe, dispatching
from tests.support.held_upstream import HeldUpstream
from tests.support.receiver import receiver
from tests.support.roles import settings_for
from tests.support.waiting import eventually_async
from tests.support.webhook_probe import DeliveryRows

__all__ = ["receiver"]

_prefixes = itertools.count()


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[HeldUpstream]:
    """Run the upstream of the module's dispatchers."""
    async with HeldUpstream() as made:
        yield made


@pytest.fixture
async def sim(upstream: HeldUpstream) -> HeldUpstream:
    """Return the upstream as if nothing had been called yet."""
    await eventually_async(lambda: upstream.stats.current == 0, what="the end of the calls of earlier tests")
    upstream.reset()
    return upstream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the dispatchers of the module keep their data."""
    return tmp_path_factory.mktemp("dispatcher")


@pytest.fixture(scope="module")
def changes(upstream: HeldUpstream) -> dict[str, object]:
    """Return the settings that are not as usual; a module that wants others overrides this."""
    return {
        "upstream__urls": [upstream.url],
        "dispatcher__shutdown_grace_s": 1,
        "dispatcher__heartbeat_s": 0.5,
        "dispatcher__commit_interval_s": 0.2,
        "dispatcher__component": "inference",
    }


@pytest.fixture(scope="module")
def configuration(kafka: str, folder: Path, changes: dict[str, object]) -> tuple[Settings, dict[str, str]]:
    """Choose settings on topics of the module's own."""
    return settings_for(kafka, folder, f"dispatch{next(_prefixes)}-{time.time_ns()}.", **changes)


@pytest.fixture(scope="module")
def settings(configuration: tuple[Settings, dict[str, str]]) -> Settings:
    """Return the settings of the module's dispatchers."""
    return configuration[0]


@pytest.fixture(scope="module")
def env(configuration: tuple[Settings, dict[str, str]]) -> dict[str, str]:
    """Return the environment that gives a process the same settings."""
    return configuration[1]


@pytest.fixture(scope="module")
async def probe(settings: Settings) -> AsyncIterator[DispatcherProbe]:
    """Play the scheduler on the module's topics."""
    async with dispatcher_probe(settings) as made:
        yield made


@pytest.fixture(scope="module")
async def dispatcher(probe: DispatcherProbe, settings: Settings) -> AsyncIterator[Dispatcher]:
    """Run the dispatcher that the tests of a module share."""
    if settings.dispatcher.component == "inference":
        await probe.use_queue()
    async with dispatching(settings) as made:
        yield made


@pytest.fixture(scope="module")
async def rows(probe: DispatcherProbe, settings: Settings) -> AsyncIterator[DeliveryRows]:
    """Follow the rows of the deliveries."""
    made = DeliveryRows(settings)
    await made.tail.open()
    yield made
    await made.tail.close()
