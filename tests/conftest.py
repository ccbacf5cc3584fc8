"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.kafka import kafka_for_tests

# A machine with other work pauses a test for longer than any bound on one example. Each run draws other examples, so
# few of them keep the suite short and still find over the days what many would: HYPOTHESIS_PROFILE=thorough draws many.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any-machine", _PATIENT, max_examples=40)
settings.register_profile("thorough", _PATIENT, max_examples=1_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "any-machine"))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of a broker for the whole session; give topics a prefix of your own."""
    with kafka_for_tests(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap
