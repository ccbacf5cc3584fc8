"""A lane as its workers see it, against a plain fold of the same rows."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.pull.queue import Candidate, PullCounts, PullQueue
from schemas.records import TERMINAL, Status
from tests.support.bella import row_of
from tests.support.records import task

EVER = 1 << 62
STATES = ("queued", "processing", "completed", "failed", "cancelled", "expired")


def row(number: int, state: str = "queued", **changes: Any) -> Status:
    started = None if state == "queued" else 5
    made = task(id=f"TASK-7-0-C-260101000000-0000-{number:06d}", created_ms=number * 10)
    return row_of(made, 0, state=state, **{"started_ms": started, **changes})


steps = st.tuples(
    st.integers(0, 12),
    st.one_of(
        st.none(),
        st.builds(
            dict,
            state=st.sampled_from(STATES),
            not_before_ms=st.sampled_from((None, 99)),
            started_ms=st.sampled_from((None, 5)),
            duplicate_of=st.sampled_from((None, None, "TASK-other")),
        ),
    ),
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(steps, max_size=80), st.integers(1, 20), st.integers(0, 130))
def test_a_lane_is_a_fold_of_its_rows(
    story: list[tuple[int, dict[str, Any] | None]], count: int, before_ms: int
) -> None:
    lane, rows = PullQueue(), dict[int, Status]()
    for number, fields in story:
        after = None if fields is None else row(number, **fields)
        lane.change(rows.get(number), after)
        if after is None:
            rows.pop(number, None)
        else:
            rows[number] = after
    waiting = sorted(
        Candidate(one["created_ms"], one["id"])
        for one in rows.values()
        if one["state"] == "queued" and one["not_before_ms"] is None
    )
    tasks = [one for one in rows.values() if one["duplicate_of"] is None]
    assert lane.oldest(count, before_ms=EVER) == waiting[:count]
    assert lane.oldest(count, before_ms=before_ms) == [one for one in waiting if one.created_ms < before_ms][:count]
    assert lane.oldest(99, before_ms=EVER, skip={one.id for one in waiting[::2]}) == waiting[1::2]
    assert lane.held == {one["id"] for one in rows.values() if one["state"] == "processing"}
    assert lane.counts == PullCounts(
        len(tasks),
        sum(one["started_ms"] is not None for one in tasks),
        sum(one["state"] in TERMINAL for one in tasks),
    )


@settings(deadline=None)  # the machine may be busy
@given(st.permutations(range(40)), st.integers(4, 12))
def test_a_lane_keeps_the_oldest_and_asks_for_more_when_they_run_low(order: list[int], limit: int) -> None:
    lane, waiting = PullQueue(limit=limit), {number: row(number) for number in range(40)}
    for number in order:
        lane.change(None, waiting[number])
    handed_out = []
    while waiting:
        if lane.is_exhausted:
            lane.restart()
            for one in waiting.values():
                lane.observe(one)
        [oldest] = lane.oldest(1, before_ms=EVER)
        number = oldest.created_ms // 10
        lane.change(waiting.pop(number), row(number, "processing"))
        handed_out.append(number)
        assert len(lane.oldest(99, before_ms=EVER)) <= limit
    assert handed_out == sorted(handed_out)


def test_a_task_that_comes_back_stands_at_its_old_place() -> None:
    lane = PullQueue()
    for number in (1, 2, 3):
        lane.change(None, row(number))
    held = row(1, "processing")
    lane.change(row(1), held)
    lane.change(held, row(1, attempt=2))
    assert [one.created_ms for one in lane.oldest(9, before_ms=EVER)] == [10, 20, 30]


def test_the_last_ones_are_named() -> None:
    lane = PullQueue()
    for number, state in ((1, "completed"), (4, "queued"), (2, "processing"), (3, "queued")):
        lane.change(None, row(number, state))
    assert (lane.newest, lane.newest_loaded) == (Candidate(40, row(4)["id"]), Candidate(20, row(2)["id"]))
