"""Which tasks a replay is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from headrace.replay.choice import Choice, Matcher, moment_ms, read_ids
from schemas.ids import parse
from tests.support.records import task, task_id

NOW_MS = 1_795_000_000_000


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("now", NOW_MS),
        ("-90s", NOW_MS - 90_000),
        ("-30m", NOW_MS - 1_800_000),
        ("-2h", NOW_MS - 7_200_000),
        ("-7d", NOW_MS - 604_800_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-02", 86_400_000),
        ("-999999999d", 0),
    ],
)
def test_times(text: str, at_ms: int) -> None:
    assert moment_ms(text, now_ms=NOW_MS, field="--from") == at_ms


@pytest.mark.parametrize("text", ["", "2h", "-2w", "yesterday", "-h", "1969-12-31", "-1.5h", "9" * 100])
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(ConfigError, match="--to"):
        moment_ms(text, now_ms=NOW_MS, field="--to")


def test_ids_are_read_in_every_spelling_and_once() -> None:
    one = task_id()
    known = parse(one)
    assert read_ids([one, "", f" {known.uuid()}\n", known.task(), known.batch_request()]) == (one,)
    with pytest.raises(ConfigError, match="id 2"):
        read_ids([one, "nonsense"])


@pytest.mark.parametrize(
    ("choice", "fits"),
    [
        (Choice(), True),
        (Choice(queues=("chat", "x")), True),
        (Choice(queues=("x",)), False),
        (Choice(owners=("key-1",)), True),
        (Choice(owners=("key-2",)), False),
        (Choice(models=("m",)), True),
        (Choice(models=("n",)), False),
    ],
)
def test_a_task_fits(choice: Choice, fits: bool) -> None:
    assert Matcher(choice).by_task(task_id(), task(), model="m") is fits


def test_repetitions_are_chosen_when_they_are_asked_for() -> None:
    one = task_id()
    repeated = task(replay_of=task_id())
    assert not Matcher(Choice()).by_task(one, repeated, model="m")
    assert Matcher(Choice(replays=True)).by_task(one, repeated, model="m")
    assert Matcher(Choice(ids=(one,))).by_task(one, repeated, model="m")
    assert not Matcher(Choice(ids=(task_id(),))).by_task(one, repeated, model="m")


def test_headers_only_leave_out_what_they_rule_out() -> None:
    matcher = Matcher(Choice(queues=("a",), owners=("o",)))
    assert matcher.by_headers([])
    assert matcher.by_headers([("x-queue", b"a"), ("x-owner", b"o"), ("x-queue-2", b"b")])
    assert not matcher.by_headers([("x-queue", b"b"), ("x-owner", b"o")])
    assert not matcher.by_headers([("x-queue", b"a"), ("x-owner", None)])
    assert Matcher(Choice()).by_headers([("x-queue", b"\xff")])


def test_time_and_ending() -> None:
    matcher = Matcher(Choice(from_ms=10, to_ms=20, endings=("failed", "none")))
    assert [matcher.in_time(at) for at in (9, 10, 19, 20)] == [False, True, True, False]
    assert [matcher.by_ending(one) for one in ("failed", "none", "completed")] == [True, True, False]
    assert Matcher(Choice()).by_ending("completed")


names = st.lists(st.text(max_size=8), max_size=3).map(tuple)


@given(queues=names, owners=names, from_ms=st.none() | st.integers(0, 1 << 50), replays=st.booleans())
def test_a_choice_survives_its_file(
    queues: tuple[str, ...], owners: tuple[str, ...], from_ms: int | None, replays: bool
) -> None:
    choice = Choice(queues=queues, owners=owners, from_ms=from_ms, replays=replays)
    assert Choice.from_json(choice.as_json()) == choice
