"""The readiness of a dispatcher is that of its parts, each under its own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from core.clock import Deadline
from dispatcher.batches.service import BatchService
from dispatcher.inference.service import InferenceService
from dispatcher.main import _ready
from dispatcher.webhooks.service import WebhookService


class Part:
    """A part that is ready or not."""

    def __init__(self, name: str, ready: bool) -> None:
        self.name = name
        self._ready = ready

    async def open(self) -> None: ...

    async def close(self, deadline: Deadline) -> None: ...

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self._ready, {"missing": [] if self._ready else ["something"]}


@pytest.mark.parametrize("second", [True, False])
def test_a_dispatcher_is_ready_when_all_of_its_parts_are(second: bool) -> None:
    ready, detail = _ready([Part("one", True), Part("two", second)])
    assert ready is second
    assert detail == {"one": {"missing": []}, "two": {"missing": [] if second else ["something"]}}


def test_the_names_of_the_parts_stay() -> None:
    assert [part.name for part in (InferenceService, WebhookService, BatchService)] == [
        "inference",
        "sender",
        "batches",
    ]
