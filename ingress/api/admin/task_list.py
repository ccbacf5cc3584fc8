"""One page of everybody's tasks, newest first: the lists of all owners merged. Pure but for the view it is given.

The read model keeps an order per owner, so that no tenant's list costs anything for another's tasks.
"""

from __future__ import annotations

from typing import NamedTuple

from core.errors import InvalidRequest, NotFound
from ingress.api.tasks.listing import Page, Query, read_page
from ingress.read_model import listing_index
from ingress.read_model.listing_index import PREFIX, ListingPosition
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from schemas import ids

OWNERS = 1_000
"""Owners that one page looks at; with more of them an owner has to be named."""


class SortPosition(NamedTuple):
    """A place in the merged order: the newest first, and by id within a millisecond."""

    newer_ms: int
    id: str


def owners(view: TaskView, *, most: int = OWNERS) -> list[str]:
    """List who has tasks, by jumping from the first entry of one to that of the next; raises InvalidRequest."""
    found: list[str] = []
    begin, end = PREFIX, PREFIX[:-1] + bytes([PREFIX[-1] + 1])
    while entries := view.scan(begin, end, limit=1):
        if len(found) == most:
            raise InvalidRequest(f"more than {most} owners have tasks; name one", field="owner")
        owner = listing_index.owner(entries[0][0])
        found.append(owner)
        begin = listing_index.since(owner, -1) + b"\xff"
    return found


async def read_all(view: TaskView, names: list[str], query: Query) -> Page:
    """Return a page of the tasks of some owners; raises NotFound for an `after` that nobody has."""
    after = query.after
    if isinstance(after, ids.TaskId):
        row = view.get(str(after).encode())
        if row is None:
            raise NotFound(f"there is no task {after.task()}", field="after")
        after = ListingPosition(row["created_ms"], row["id"])
    pages = [await read_page(view, name, query._replace(after=after)) for name in names]
    found = sorted((reading for page in pages for reading in page.tasks), key=_place)
    # Beyond this nothing is certain: an owner whose page is full, or ended early, may have more before the next one.
    sure = min(
        (SortPosition(-page.next.created_ms, page.next.id) for page in pages if page.next is not None), default=None
    )
    shown = [one for one in found if sure is None or _place(one) <= sure][: query.limit]
    if len(shown) == query.limit and (sure is not None or len(found) > len(shown)):
        return Page(shown, ListingPosition(shown[-1].created_ms, shown[-1].id))
    return Page(shown, None if sure is None else ListingPosition(-sure.newer_ms, sure.id))


def _place(reading: TaskSnapshot) -> SortPosition:
    return SortPosition(-reading.created_ms, reading.id)
