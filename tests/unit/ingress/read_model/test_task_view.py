"""The read model's order against a plain model of it: any rows, in any order, in any batches."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.read_model import listing_index
from ingress.read_model.task_view import FORMAT_VERSION, TaskView
from schemas.records import Status
from streams.state_machine.rows import TaskRules, early_cancel_status, new_status
from tests.support.read_model import TP, emptied, open_view, record_of, removed
from tests.support.records import event, task, task_id

IDS = [task_id(partition=number % 3) for number in range(6)]
OWNERS = ["key-1", "key-2"]
ALL = 1_000


def row_of(number: int, state: str = "queued") -> Status:
    """Build the row of one of the tasks: owner and time never change."""
    new = task(owner=OWNERS[number % 2])
    row = new_status(new, task_id=IDS[number], offset=number, created_ms=1_000 + number // 2, rules=TaskRules())
    return {**row, "state": state}  # type: ignore[typeddict-item]


def listed(view: TaskView, owner: str) -> list[str]:
    begin, end = listing_index.bounds(owner, from_ms=None, before_ms=None)
    return [listing_index.position(key).id for key, _ in view.scan(begin, end, limit=ALL)]


def model(rows: dict[int, Status], owner: str) -> list[str]:
    mine = [row for row in rows.values() if row["owner"] == owner]
    return [row["id"] for row in sorted(mine, key=lambda row: (-row["created_ms"], row["id"]))]


changes = st.tuples(st.integers(0, 5), st.sampled_from(["queued", "processing", "completed", "early", "removed"]))


@given(batches=st.lists(st.lists(changes, min_size=1, max_size=6), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_order_follows_the_rows(shared_view: TaskView, batches: list[list[tuple[int, str]]]) -> None:
    rows: dict[int, Status] = {}
    view = emptied(shared_view)
    for batch in batches:
        records = []
        for number, what in batch:
            if what == "removed":
                rows.pop(number, None)
                records.append(removed(IDS[number]))
            elif what == "early" and number not in rows:
                early = event("cancel", at_ms=1, task_id=IDS[number], owner=OWNERS[number % 2])
                records.append(record_of(early_cancel_status(early, now_ms=7_000)))
            elif what != "early":
                rows[number] = row_of(number, what)
                records.append(record_of(rows[number]))
        if records:
            view.feed(TP, records)
    for owner in OWNERS:
        assert listed(view, owner) == model(rows, owner)


def test_a_scan_is_bounded_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with open_view(tmp_path) as view:
        view.feed(TP, [record_of(row_of(number)) for number in range(6)])
        begin, end = listing_index.bounds("key-1", from_ms=None, before_ms=None)
        first = view.scan(begin, end, limit=2)
        assert len(first) == 2
        rest = view.scan(first[-1][0] + b"\x00", end, limit=ALL)
        assert [listing_index.position(key).id for key, _ in first + rest] == listed(view, "key-1")


def test_the_order_is_there_again_after_a_restart(tmp_path: Path) -> None:
    with open_view(tmp_path) as view:
        view.feed(TP, [record_of(row_of(number)) for number in range(6)])
        before = listed(view, "key-1")
    with open_view(tmp_path) as view:
        assert listed(view, "key-1") == before
        assert len(before) == 3


def test_a_store_of_another_version_is_made_anew(tmp_path: Path) -> None:
    with open_view(tmp_path) as view:
        assert view._store is not None
        view._store[b"\x00cluster"] = b"c"
        assert not view._fits({}, "c")  # as it was before there was an order
        view._store[b"\x00form"] = FORMAT_VERSION
        assert view._fits({}, "c")
        assert not view._fits({}, "d")


async def test_waiting_for_an_end_passes_over_everything_else(tmp_path: Path) -> None:
    with open_view(tmp_path) as view:
        key = IDS[0].encode()
        waiting = [asyncio.create_task(view.wait_until_ended(key, seconds=60)) for _ in range(3)]
        for state in ("queued", "processing"):
            view.feed(TP, [record_of(row_of(0, state)), record_of(row_of(1, "completed"))])
            await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        view.feed(TP, [record_of(row_of(0, "failed"))])
        assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [True] * 3
        assert view._awaited == {}
        assert not await view.wait_until_ended(IDS[2].encode(), seconds=0.01)
        assert view._awaited == {}
