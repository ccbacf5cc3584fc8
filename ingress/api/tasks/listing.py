"""The list of a tenant's tasks: the query, and one page."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import NamedTuple

from core.errors import InvalidRequest, NotFound
from ingress.api.tasks.models import DEFAULT_LIMIT, TaskListQuery
from ingress.read_model import listing_index
from ingress.read_model.listing_index import Filters, ListingPosition
from ingress.read_model.task_snapshot import TaskSnapshot, from_status
from ingress.read_model.task_view import TaskView
from schemas import ids
from schemas.records import STATES, State

SCAN_ENTRIES = 50_000
"""Entries that one page reads at most; then it ends early, with a cursor. Some tenths of a second."""
SLICE_ENTRIES = 500
"""Entries that are scanned before other requests run."""
LEVELS = {"0": 0, "1": 1, "online": 0, "offline": 1}
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_CURSOR = re.compile(r"(\d{1,16})-(task_[0-9a-f]{32})")


class Query(NamedTuple):
    """What a page is asked for."""

    filters: Filters = Filters()
    model: str | None = None
    from_ms: int | None = None
    """Created then or later, epoch ms."""
    before_ms: int | None = None
    """Created before then, epoch ms."""
    limit: int = DEFAULT_LIMIT
    after: ListingPosition | ids.TaskId | None = None
    """The task that the page follows, or its place in the order."""


class Page(NamedTuple):
    """A part of the list."""

    tasks: list[TaskSnapshot]
    next: ListingPosition | None
    """Where the next page begins; None at the end."""


def query_of(given: TaskListQuery) -> Query:
    """Interpret the parameters of a list; raises InvalidRequest naming the wrong one."""
    return Query(
        filters=Filters(_states(given.status), given.queue, _level(given.level)),
        model=given.model,
        from_ms=_time(given.created_after, "created_after"),
        before_ms=_time(given.created_before, "created_before"),
        limit=given.limit,
        after=_after(given.after),
    )


def cursor(position: ListingPosition) -> str:
    """Render a place in the order."""
    return f"{position.created_ms}-{ids.parse(position.id).task()}"


async def read_page(view: TaskView, owner: str, query: Query) -> Page:
    """Return the tasks of an owner that a query asks for, newest first; raises NotFound for an `after` of others."""
    begin, end = listing_index.bounds(owner, from_ms=query.from_ms, before_ms=query.before_ms)
    if query.after is not None:
        begin = max(begin, listing_index.entry_key(owner, _place(view, owner, query.after)) + b"\x00")
    found: list[TaskSnapshot] = []
    last: bytes | None = None
    seen = 0
    while seen < SCAN_ENTRIES:
        wanted = query.limit + 1 if not seen else SLICE_ENTRIES
        entries = view.scan(begin, end, limit=wanted)
        for key, value in entries:
            reading = _match(view, query, key, value)
            if reading is not None and len(found) == query.limit:
                return Page(found, listing_index.position(last or key))
            if reading is not None:
                found.append(reading)
                last = key
        if len(entries) < wanted:
            return Page(found, None)
        seen += len(entries)
        begin = entries[-1][0] + b"\x00"
        await asyncio.sleep(0)
    return Page(found, listing_index.position(begin[:-1]))


def _match(view: TaskView, query: Query, key: bytes, value: bytes) -> TaskSnapshot | None:
    """Return the task of an entry if it matches; its row is read only if the entry itself matches."""
    if not query.filters.match(value):
        return None
    row = view.get(listing_index.position(key).id.encode(), holding=(query.model or "").encode())
    return None if row is None or query.model not in (None, row["model"]) else from_status(row)


def _place(view: TaskView, owner: str, after: ListingPosition | ids.TaskId) -> ListingPosition:
    if isinstance(after, ListingPosition):
        return after
    row = view.get(str(after).encode())
    if row is None or row["owner"] != owner:
        raise NotFound(f"there is no task {after.task()}", field="after")
    return ListingPosition(row["created_ms"], row["id"])


def _states(text: str | None) -> frozenset[State] | None:
    if text is None:
        return None
    wanted = {word.strip() for word in text.split(",")}
    states = frozenset(state for state in STATES if state in wanted)
    if len(states) != len(wanted):
        raise InvalidRequest(f"status must be of {', '.join(STATES)}; several are separated by commas", field="status")
    return states


def _level(text: str | None) -> int | None:
    if text is None:
        return None
    if text not in LEVELS:
        raise InvalidRequest("level must be 0 (online) or 1 (offline)", field="level")
    return LEVELS[text]


def _time(text: str | None, name: str) -> int | None:
    """Read a time: epoch seconds, or ISO 8601, in UTC unless it has an offset."""
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return round(float(text) * 1000)
    try:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not encoded arrives as a blank
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name} must be a time such as 2026-01-31T12:00:00Z, or epoch seconds", field=name
        ) from None


def _after(text: str | None) -> ListingPosition | ids.TaskId | None:
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    try:
        known = ids.parse(match[2] if match else text)
    except ids.IdError:
        message = "after must be the id of a task, or the next_cursor of the page before"
        raise InvalidRequest(message, field="after") from None
    return ListingPosition(int(match[1]), str(known)) if match else known
