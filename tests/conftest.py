"""What all tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist import is_xdist_controller

from tests.support.distribution import Distribution, unit_of
from tests.support.kafka import VARIABLE, kafka_for_tests, kafka_wanted

# A machine with other work pauses a test for longer than any bound on one example. Each run draws other examples, so
# few of them keep the suite short and still find over the days what many would: HYPOTHESIS_PROFILE=thorough draws many.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any-machine", _PATIENT, max_examples=40)
settings.register_profile("thorough", _PATIENT, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "any-machine"))

_STARTED = pytest.StashKey[tuple[ExitStack, str]]()


@pytest.hookimpl(tryfirst=True)  # before the worker processes begin
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the one broker that all worker processes use."""
    if is_xdist_controller(session) and kafka_wanted():
        stack = ExitStack()
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-tests-", ignore_cleanup_errors=True))
        )
        session.config.stash[_STARTED] = stack, stack.enter_context(kafka_for_tests(Path(folder)))


def pytest_configure_node(node: Any) -> None:
    """Hand the broker on to a worker process."""
    if _STARTED in node.config.stash:
        node.workerinput["kafka"] = node.config.stash[_STARTED][1]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the broker; the workers are gone by now."""
    if _STARTED in session.config.stash:
        session.config.stash[_STARTED][0].close()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Distribution:
    """Share out whole modules, or what shares a set-up."""
    return Distribution(config, log)


@pytest.hookimpl(trylast=True)  # after the shuffle
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a unit together, so that a set-up which they share is made once in one process, too."""
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        first.setdefault(unit_of(item.nodeid), number)
    items.sort(key=lambda item: first[unit_of(item.nodeid)])


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the broker of this run; give topics a prefix of your own."""
    if not kafka_wanted():
        pytest.fail(f"this test needs a broker, and {VARIABLE} says that there is none")
    if shared := getattr(request.config, "workerinput", {}).get("kafka"):
        yield shared
    else:
        with kafka_for_tests(tmp_path_factory.mktemp("kafka")) as bootstrap:
            yield bootstrap


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own, where no headrace.toml of the developer lies."""
    monkeypatch.chdir(tmp_path)
