"""Pages of the list over the real store: whatever happens between them, a task that stays is listed once, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.api.tasks import listing
from ingress.api.tasks.listing import Query, cursor, query_of, read_page
from ingress.api.tasks.models import TaskListQuery
from ingress.read_model.listing_index import Filters, ListingPosition
from ingress.read_model.task_view import TaskView
from schemas.records import State, Status
from streams.state_machine.rows import TaskRules, new_status
from tests.support.read_model import TP, emptied, open_view, record_of, removed
from tests.support.records import task, task_id

IDS = [task_id(partition=number % 3) for number in range(12)]
QUEUES, MODELS, STATES = ("a", "ab"), ("m", "mm"), ("queued", "completed")
EVERYTHING = Query(limit=100)


class Made(NamedTuple):
    """What distinguishes a task here."""

    created_ms: int
    queue: str
    model: str
    state: State


made = st.builds(Made, st.integers(0, 4), st.sampled_from(QUEUES), st.sampled_from(MODELS), st.sampled_from(STATES))
queries = st.builds(
    Query,
    filters=st.builds(
        Filters,
        states=st.none() | st.sampled_from([frozenset(("queued",)), frozenset(("completed",))]),
        queue=st.none() | st.sampled_from(QUEUES),
        level=st.sampled_from([None, 0, 1]),
    ),
    model=st.none() | st.sampled_from(MODELS),
    from_ms=st.none() | st.integers(0, 4),
    before_ms=st.none() | st.integers(0, 5),
    limit=st.integers(1, 3),
    after=st.none(),
)


def row_of(number: int, one: Made) -> Status:
    new = task(queue=one.queue, model=one.model, owner="key-1")
    row = new_status(new, task_id=IDS[number], offset=number, created_ms=one.created_ms, rules=TaskRules())
    return {**row, "state": one.state}


def wanted(query: Query, one: Made) -> bool:
    return (
        (query.filters.states is None or one.state in query.filters.states)
        and query.filters.queue in (None, one.queue)
        and query.filters.level in (None, 0)
        and query.model in (None, one.model)
        and (query.from_ms is None or one.created_ms >= query.from_ms)
        and (query.before_ms is None or one.created_ms < query.before_ms)
    )


class Between(NamedTuple):
    """What happens between two pages: a new task, and one that goes or changes its state."""

    new: Made
    number: int
    goes: bool


async def walk(
    view: TaskView, query: Query, happenings: list[Between], tasks: dict[int, Made]
) -> tuple[list[str], set[str]]:
    """Read page after page; returns the listed ids, and those of the tasks that were touched meanwhile."""
    seen: list[str] = []
    touched: set[str] = set()
    following = iter(happenings)
    number = len(tasks)
    while True:
        page = await read_page(view, "key-1", query)
        assert len(page.tasks) <= query.limit
        seen += [one.id for one in page.tasks]
        if page.next is None:
            return seen, touched
        query = query._replace(after=query_of(TaskListQuery(after=cursor(page.next))).after)
        if (change := next(following, None)) is not None:
            touched |= {IDS[number], IDS[change.number]}
            other = row_of(change.number, tasks[change.number]._replace(state="completed"))
            gone = removed(IDS[change.number]) if change.goes else record_of(other)
            view.feed(TP, [record_of(row_of(number, change.new)), gone])
            number += 1


@given(
    tasks=st.lists(made, min_size=4, max_size=8),
    query=queries,
    happenings=st.lists(st.builds(Between, made, st.integers(0, 3), st.booleans()), max_size=4),
    scan=st.integers(1, 4),
)
@settings(max_examples=120, deadline=None)
def test_pages_are_complete_and_without_repeats(
    shared_view: TaskView, tasks: list[Made], query: Query, happenings: list[Between], scan: int
) -> None:
    rows = dict(enumerate(tasks))
    view = emptied(shared_view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "SCAN_ENTRIES", scan)
        patch.setattr(listing, "SLICE_ENTRIES", 2)
        view.feed(TP, [record_of(row_of(number, one)) for number, one in rows.items()])
        seen, touched = asyncio.run(walk(view, query, happenings, rows))
    assert len(set(seen)) == len(seen)
    fitting = [(number, one) for number, one in rows.items() if wanted(query, one)]
    expected = [IDS[number] for number, one in sorted(fitting, key=lambda item: (-item[1].created_ms, IDS[item[0]]))]
    assert [name for name in seen if name not in touched] == [name for name in expected if name not in touched]


def test_a_cursor_is_read_as_it_was_written() -> None:
    place = ListingPosition(1_769_860_800_250, IDS[0])
    assert query_of(TaskListQuery(after=cursor(place))).after == place


async def test_the_id_of_a_task_is_a_place_as_well(tmp_path: Path) -> None:
    with open_view(tmp_path) as view:
        view.feed(TP, [record_of(row_of(number, Made(number, "a", "m", "queued"))) for number in range(4)])
        everything = (await read_page(view, "key-1", EVERYTHING)).tasks
        after = query_of(TaskListQuery(after=everything[1].id)).after
        rest = (await read_page(view, "key-1", EVERYTHING._replace(after=after))).tasks
    assert [one.id for one in rest] == [one.id for one in everything[2:]]
