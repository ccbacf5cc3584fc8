"""Which name is offered in place of one that is not known."""

from __future__ import annotations

import pytest

from schemas.nearest import hint

KNOWN = ("queue", "callback_url", "callback_events", "X-Headrace-Timeout")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("callback", "callback_url"),
        ("callbackUrl", "callback_url"),
        ("CALLBACK-URL", "callback_url"),
        ("queues", "queue"),
        ("X-Headrace-Timout", "X-Headrace-Timeout"),
        ("queue" + "e" * 100, None),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_nearest_is_named_and_else_all(name: str, meant: str | None) -> None:
    assert hint(name, KNOWN) == (f"; did you mean {meant}?" if meant else f"; there are {', '.join(KNOWN)}")
