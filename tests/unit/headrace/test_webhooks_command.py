"""What `headrace webhooks redrive` sends again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from core.deliveries import begun
from core.settings import Settings
from headrace import webhooks
from schemas.records import Delivery, DeliveryState


def told(event: str, state: DeliveryState) -> Delivery:
    made = begun(
        "TASK-1-0-C-261118110640-0001-000001", event, name=event, url="http://there:81/x", owner="alice", level=0,
        result_offset=1, payload=None, now_ms=1,
    )  # fmt: skip
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
        told("completed", "failed"), told("start", "disabled"), told("progress", "failed"),
        told("completed", "delivered"), told("completed", "pending"),
    ]  # fmt: skip

    async def read(_: Settings, chosen: Callable[[Delivery], bool]) -> list[Delivery]:
        return [row for row in rows if chosen(row)]

    monkeypatch.setattr(webhooks, "_read", read)
    done = CliRunner().invoke(webhooks.redrive, ["--dry-run", *options])
    assert (done.exit_code, done.output) == (0, f"{count} callbacks would be sent again.\n")
