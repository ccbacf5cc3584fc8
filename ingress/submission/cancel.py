"""Cancel a task on request: write the cancel, and return when the scheduler has decided."""

from __future__ import annotations

from core.errors import NotCancellable
from ingress.connected import Connected
from ingress.read_model.task_snapshot import TaskSnapshot
from schemas import ids
from schemas.records import TERMINAL

DECISION_TIMEOUT_S = 1.0
"""The row changes within milliseconds; after a time-out the cancel is still in the log."""


async def cancel_task(connected: Connected, text: str, *, owner: str | None) -> TaskSnapshot:
    """Cancel a task; the owner None means an operator.

    Raises NotFound, NotCancellable when it has ended, and Unavailable when the cancel was not written.
    """
    reading = await connected.task_lookup.find_state(text, owner=owner)
    if reading.state in TERMINAL:
        raise _ended(reading.id, reading.state)
    await connected.submitter.cancel(ids.parse(reading.id), owner=owner, reason="cancelled on request")
    row = await connected.view.wait_until(
        reading.id.encode(), lambda found: found["state"] in TERMINAL, seconds=DECISION_TIMEOUT_S
    )
    if row is not None and row["state"] in ("completed", "failed"):
        raise _ended(reading.id, row["state"])  # its result came first
    return reading


def _ended(task_id: str, state: str) -> NotCancellable:
    return NotCancellable(f"{NotCancellable.code}: task {task_id} has ended already ({state})")
