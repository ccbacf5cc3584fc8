"""The four strategies: what they promise for any lanes, and what they give for some."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.pull.queue import Candidate, QueueLevel
from ingress.pull.strategies import MAX_FIFO, MAX_TASKS, STRATEGIES, PickedTask, Strategy, allowed, pick

A, B, C = (QueueLevel(name, 0) for name in "abc")


def lane(*times: int) -> list[Candidate]:
    return [Candidate(at, f"t{at}") for at in times]


WAITING = {A: lane(5, 6, 7), B: lane(1, 9), C: lane(4)}


@pytest.mark.parametrize(
    ("strategy", "times"),
    [
        ("fifo", [1, 4, 5, 6, 7, 9]),
        ("round_robin", [5, 1, 4, 6, 9, 7]),
        ("active_passive", [5, 6, 7, 1, 9, 4]),
        ("sequential", [5, 1, 4]),
    ],
)
def test_each_strategy_has_its_order(strategy: Strategy, times: list[int]) -> None:
    for count in range(8):
        assert [one.task.created_ms for one in pick(strategy, WAITING, count)] == times[:count]


lanes = st.dictionaries(
    st.builds(QueueLevel, st.sampled_from("abcdef"), st.integers(0, 1)),
    st.lists(st.integers(0, 999), unique=True).map(sorted),
    max_size=6,
)


@settings(deadline=None)  # the machine may be busy
@given(lanes, st.sampled_from(STRATEGIES), st.integers(0, 60))
def test_no_task_is_picked_twice_and_none_left_that_was_wanted(
    times: dict[QueueLevel, list[int]], strategy: Strategy, count: int
) -> None:
    waiting = {name: [Candidate(at, f"{name}/{at}") for at in found] for name, found in times.items()}
    picks = pick(strategy, waiting, count)
    assert len(set(picks)) == len(picks)
    assert all(one.task in waiting[one.queue_level] for one in picks)
    there = sum(map(bool, waiting.values())) if strategy == "sequential" else sum(map(len, waiting.values()))
    assert len(picks) == min(count, there)
    for name in waiting:
        mine = [one.task for one in picks if one.queue_level == name]
        assert mine == waiting[name][: len(mine)], "each lane gives its oldest first"
        assert strategy != "sequential" or len(mine) <= 1


@settings(deadline=None)  # the machine may be busy
@given(lanes, st.integers(1, 60))
def test_fifo_leaves_nothing_older_behind(times: dict[QueueLevel, list[int]], count: int) -> None:
    waiting = {name: [Candidate(at, f"{name}/{at}") for at in found] for name, found in times.items()}
    picks = pick("fifo", waiting, count)
    left = {PickedTask(name, one) for name, found in waiting.items() for one in found} - set(picks)
    assert not left or not picks or min(one.task for one in left) >= max(one.task for one in picks)


@settings(deadline=None)  # the machine may be busy
@given(lanes, st.integers(1, 60))
def test_round_robin_is_fair(times: dict[QueueLevel, list[int]], count: int) -> None:
    waiting = {name: [Candidate(at, f"{name}/{at}") for at in found] for name, found in times.items()}
    given_out = {name: sum(one.queue_level == name for one in pick("round_robin", waiting, count)) for name in waiting}
    most = max(given_out.values(), default=0)
    assert all(given_out[name] in (most, most - 1, len(waiting[name])) for name in waiting)


def test_a_take_is_bounded() -> None:
    assert [allowed(strategy, 1_000) for strategy in STRATEGIES] == [MAX_FIFO, MAX_TASKS, MAX_TASKS, MAX_TASKS]
    assert allowed("fifo", 3) == 3
