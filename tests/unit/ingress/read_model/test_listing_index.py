"""The order of an owner's tasks: keys that sort as they should, whatever the owners and times are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.read_model import listing_index
from ingress.read_model.listing_index import Filters, ListingPosition
from schemas.records import STATES, State
from streams.intake.deduplication import duplicate_row, reservation_row
from streams.outputs import status_record
from streams.state_machine.rows import TaskRules, early_cancel_status, new_status
from tests.support.records import event, task, task_id

owners = st.text(max_size=5) | st.sampled_from(["a", "aa", "a\x00", "key-1", "key-10"])
times = st.integers(0, 20) | st.integers(0, (1 << 63) - 1)
positions = st.builds(ListingPosition, times, st.sampled_from([task_id(partition=n) for n in range(5)]))
ROW = new_status(task(), task_id=task_id(), offset=3, created_ms=1_500, rules=TaskRules())


def headers_of(row: object) -> list[tuple[str, bytes]]:
    record = status_record(row, now_ms=2_000)  # type: ignore[arg-type]
    return list(record.headers)


@given(owner=owners, position=positions)
def test_a_key_tells_its_position(owner: str, position: ListingPosition) -> None:
    assert listing_index.position(listing_index.entry_key(owner, position)) == position


@given(owner=owners, one=positions, other=positions)
def test_newer_tasks_come_first(owner: str, one: ListingPosition, other: ListingPosition) -> None:
    first, second = listing_index.entry_key(owner, one), listing_index.entry_key(owner, other)
    assert (first < second) == ((-one.created_ms, one.id) < (-other.created_ms, other.id))


@given(
    owner=owners,
    asked=owners,
    position=positions,
    from_ms=st.none() | times,
    before_ms=st.none() | times,
)
def test_bounds_hold_exactly_the_entries_of_an_owner_and_a_time(
    owner: str, asked: str, position: ListingPosition, from_ms: int | None, before_ms: int | None
) -> None:
    begin, end = listing_index.bounds(asked, from_ms=from_ms, before_ms=before_ms)
    wanted = (
        owner == asked
        and (from_ms is None or position.created_ms >= from_ms)
        and (before_ms is None or position.created_ms < before_ms)
    )
    assert (begin <= listing_index.entry_key(owner, position) < end) == wanted


@pytest.mark.parametrize("state", STATES)
def test_an_entry_is_made_from_headers_alone(state: State) -> None:
    row = {**ROW, "state": state, "level": 1}
    entry = listing_index.entry(ROW["id"].encode(), headers_of(row))
    assert entry is not None
    assert entry[0] == listing_index.entry_key("key-1", ListingPosition(1_500, ROW["id"]))
    assert Filters().match(entry[1])
    assert Filters(states=frozenset((state,)), queue="chat", level=1).match(entry[1])
    assert not Filters(states=frozenset(STATES) - {state}).match(entry[1])
    assert not Filters(queue="cha").match(entry[1])
    assert not Filters(level=0).match(entry[1])


def test_rows_that_are_no_tasks_have_no_entry() -> None:
    key = reservation_row(ROW, name="IDEM-1", content="x", now_ms=1, window_ms=1)
    early = early_cancel_status(event("cancel", at_ms=1, task_id=ROW["id"], owner="key-1"), now_ms=1)
    nobodys = {**ROW, "owner": None}
    for row in (key, duplicate_row(ROW, key, content="x", now_ms=1), early, nobodys):
        assert listing_index.entry(b"k", headers_of(row)) is None
