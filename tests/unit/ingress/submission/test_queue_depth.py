"""The count of one lane, against a plain fold of the same story."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from ingress.submission.queue_depth import LOST_S, QueueDepth
from schemas.records import State

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
STEPS = st.one_of(
    st.tuples(st.just("reserve"), KEYS, st.none()),
    st.tuples(st.just("rollback"), KEYS, st.none()),
    st.tuples(st.just("row"), KEYS, st.sampled_from([None, *get_args(State)])),
)


@given(st.lists(STEPS, max_size=60))
def test_what_waits_is_what_a_fold_says(story: list[tuple[str, bytes, State | None]]) -> None:
    count, rows, unseen = QueueDepth(), dict[bytes, State](), set[bytes]()
    for at_s, (what, key, state) in enumerate(story):
        if what == "reserve":
            count.reserve(key, now_s=at_s / 10)
            unseen.add(key)
        elif what == "rollback":
            count.rollback(key, now_s=at_s / 10)
            unseen.discard(key)
        else:
            count.change(key, rows.get(key), state, now_s=at_s / 10, timed=True)
            unseen.discard(key)
            rows.pop(key, None)
            if state is not None:
                rows[key] = state
        waiting = sum(one == "queued" for one in rows.values())
        assert count.total() == waiting + len(unseen)


def test_a_task_that_became_none_is_not_counted_for_ever() -> None:
    count = QueueDepth()
    count.reserve(b"buried", now_s=0)
    assert count.total() == 1
    count.reserve(b"later", now_s=LOST_S)
    count.change(b"later", None, "completed", now_s=LOST_S + 1, timed=True)
    assert count.total() == 1, "its scheduler may be behind"
    count.reserve(b"much later", now_s=LOST_S + 2)
    count.change(b"much later", None, "completed", now_s=LOST_S + 3, timed=True)
    assert count.total() == 0


def test_only_what_begins_now_makes_the_pace() -> None:
    count = QueueDepth()
    for key, before, after, timed in (
        (b"past", "queued", "processing", False),
        (b"cancelled", "queued", "cancelled", True),
        (b"expired", None, "expired", True),
        (b"going on", "processing", "completed", True),
        (b"again", "processing", "queued", True),
    ):
        count.change(key, before, after, now_s=1, timed=timed)  # type: ignore[arg-type]  # states, all of them
    assert count.drain.rate(now_s=1) == 0
    count.change(b"begins", "queued", "processing", now_s=1, timed=True)
    count.change(b"was quick", None, "completed", now_s=1, timed=True)
    assert count.drain.rate(now_s=1) == 2
