"""What `headrace webhooks` finds, and what it sends again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from core.deliveries import new_delivery, row
from core.errors import Unavailable
from core.settings.models import Settings
from headrace.commands import webhooks
from schemas.records import Delivery, DeliveryState


def told(event: str, state: DeliveryState) -> Delivery:
    made = new_delivery(
        "TASK-1-0-C-261118110640-0001-000001",
        event,
        name=event,
        url="http://there:81/x",
        owner="alice",
        level=0,
        result_offset=1,
        payload=None,
        now_ms=1,
    )
    return {**made, "state": state}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), 2),
        (("--host", "there:81"), 2),
        (("--host", "elsewhere"), 0),
        (("--owner", "alice"), 2),
        (("--owner", "b"), 0),
    ],
)
def test_what_was_given_up_is_redriven_except_for_progress(
    options: tuple[str, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        told("completed", "failed"),
        told("start", "disabled"),
        told("progress", "failed"),
        told("completed", "delivered"),
        told("completed", "pending"),
    ]

    async def read(_: Settings, chosen: Callable[[Delivery], bool]) -> list[Delivery]:
        return [row for row in rows if chosen(row)]

    monkeypatch.setattr(webhooks, "_read", read)
    done = CliRunner().invoke(webhooks.redrive, ["--dry-run", *options])
    assert (done.exit_code, done.output) == (0, f"{count} deliveries would be resent.\n")


def test_a_stray_record_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    made = row(Settings(), told("completed", "failed"), now_ms=1)
    values = [b"stray", b"\x00\x00\x00\x00\x0a\xff", made.record.value]

    class Log:
        async def scan(self, tp: Any, *, from_ms: int) -> AsyncIterator[Any]:  # noqa: ARG002 - the real one's
            for number, value in enumerate(values):
                if tp.partition == made.partition:
                    yield SimpleNamespace(key=b"%d" % number, value=value)

    @asynccontextmanager
    async def lookup(_: Settings, topic: str) -> AsyncIterator[Log]:
        yield Log()

    monkeypatch.setattr(webhooks, "_lookup", lookup)
    done = CliRunner().invoke(webhooks.list_, ["--json"])
    assert [one["event"] for one in json.loads(done.output)] == ["completed"]


def test_a_broker_that_does_not_answer_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_(*_: object) -> None:
        raise Unavailable

    monkeypatch.setattr(webhooks.LogReader, "open", open_)
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", "127.0.0.1:4711")
    done = CliRunner().invoke(webhooks.list_, [])
    assert done.exit_code == 1
    assert "127.0.0.1:4711, which is kafka.bootstrap" in done.output
