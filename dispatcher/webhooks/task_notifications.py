"""What happens to a task before and after its outcome, for those who asked: start, progress, expired. Pure.

Rows of tasks whose callback asked for more than the outcome carry it in a header, so all others are passed over unread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from core.bounded_set import BoundedDict
from dispatcher.webhooks.payload import news
from dispatcher.webhooks.records import of_row
from schemas.headers import CALLBACK_EVENTS
from schemas.records import TERMINAL, Delivery, Status

HEADER = CALLBACK_EVENTS
EVERY_MS = 500
"""A task's progress is told no more often than this."""
QUICK_MS = 2_000
"""A call shorter than a commit tick has no row of its own start: it is told from the row of its end."""
REMEMBERED = 20_000


class _Sent(NamedTuple):
    start: bool
    progress: int
    at_ms: int


class ProgressNotifications:
    """Remember what was told of each task; after a restart a start may be told twice, under the same webhook-id."""

    def __init__(self) -> None:
        self._told: BoundedDict[str, _Sent] = BoundedDict(at_least=REMEMBERED)

    def of(self, row: Status, *, now_ms: int) -> list[Delivery]:
        """Return what a row tells anew."""
        events, before = row["callback_events"], self._told.get(row["id"], _Sent(False, 0, 0))
        if row["callback_url"] is None or not events or row["duplicate_of"] is not None:
            return []
        found: list[Delivery] = []
        now = before
        if "start" in events and not before.start and _started(row):
            found.append(_told(row, "start", "start", now_ms))
            now = now._replace(start=True)
        moved = row["state"] == "processing" and row["progress"] > before.progress
        if "progress" in events and moved and now_ms - before.at_ms >= EVERY_MS:
            found.append(_told(row, "progress", f"progress-{row['attempt']}-{row['progress']}", now_ms))
            now = now._replace(progress=row["progress"], at_ms=now_ms)
        if "expired" in events and row["state"] == "expired" and row["finished_ms"] is not None:
            found.append(_told(row, "expired", "expired", now_ms))
        self._remember(row, now)
        return found

    def _remember(self, row: Status, told: _Sent) -> None:
        if row["state"] in TERMINAL:
            self._told.discard(row["id"])
        else:
            self._told[row["id"]] = told


def _started(row: Status) -> bool:
    if row["state"] == "processing":
        return True
    started_ms, finished_ms = row["started_ms"], row["finished_ms"]
    ended = row["state"] in ("completed", "failed") and started_ms is not None and finished_ms is not None
    return ended and (finished_ms or 0) - (started_ms or 0) < QUICK_MS


def _told(row: Status, event: str, name: str, now_ms: int) -> Delivery:
    about: dict[str, Any] = {"state": row["state"], "attempt": row["attempt"], "progress": row["progress"]}
    if event == "start":
        about["started_ms"] = row["started_ms"]
    return of_row(row, event, name, news(row["id"], event, about), now_ms=now_ms)
