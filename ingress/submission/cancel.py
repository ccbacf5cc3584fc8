"""Cancel a task on request: ask the scheduler, and answer when it has judged."""

from __future__ import annotations

from core.errors import NotCancellable
from ingress.connected import Connected
from ingress.read_model.task_snapshot import TaskSnapshot
from schemas import ids
from schemas.records import TERMINAL

DECISION_TIMEOUT_S = 1.0
"""The row says so within milliseconds; when it does not, the cancel is in the log all the same."""


async def cancel_task(connected: Connected, text: str, *, owner: str | None) -> TaskSnapshot:
    """Cancel a task; the owner None stands for operators.

    Raises NotFound, NotCancellable when it has ended, and Unavailable when nothing was asked.
    """
    reading = await connected.task_lookup.find_state(text, owner=owner)
    if reading.state in TERMINAL:
        raise _ended(reading.id, reading.state)
    await connected.submitter.cancel(ids.parse(reading.id), owner=owner, reason="cancelled on request")
    row = await connected.view.wait_until(
        reading.id.encode(), lambda found: found["state"] in TERMINAL, seconds=DECISION_TIMEOUT_S
    )
    if row is not None and row["state"] in ("completed", "failed"):
        raise _ended(reading.id, row["state"])  # its outcome came first
    return reading


def _ended(task_id: str, state: str) -> NotCancellable:
    return NotCancellable(f"{NotCancellable.code}: task {task_id} has ended already ({state})")
