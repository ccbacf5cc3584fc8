"""The memory of a replay on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.instance_lock import claim_instance
from headrace.replay import state as states
from headrace.replay.choice import Choice
from headrace.replay.read import OffsetRange
from headrace.replay.read_model import delete_read_models
from headrace.replay.state import NAME, State, Target, new_name


def state() -> State:
    spans = [OffsetRange(0, 1, 10, 20), OffsetRange(1, 1, 5, 500)]
    return State(
        name="r",
        created_ms=1,
        start_s=2,
        choice=Choice(queues=("a",), levels=(1,)),
        target=Target(queue_to="b"),
        spans=spans,
        widths={"b": 2},
    )


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.json"
    assert states.load(path) is None
    first = state()
    first.reached(first.spans[1], 77)
    first.problem("body_missing", "TASK-1")
    first.written = 70
    states.save(path, first)
    again = states.load(path)
    assert again == first
    assert [again.position(span) for span in again.spans] == [10, 77]
    states.save(path, again)
    assert [one.name for one in path.parent.iterdir()] == ["r.json"]


def test_two_replays_of_one_moment_have_names_of_their_own() -> None:
    made = {new_name(1_795_000_000_000) for _ in range(20)}
    assert len(made) == 20
    assert all(NAME.fullmatch(name) and name.startswith("replay-20261118-110640-") for name in made), made


def test_problems_are_counted_and_the_first_are_named() -> None:
    found = state()
    for number in range(100):
        found.problem("body_missing", f"TASK-{number}")
    found.expired(5)
    assert found.left_out == 105
    assert len(found.problems["body_missing"]["ids"]) == states.SHOWN_IDS
    assert found.problems["record_expired"] == {"count": 5, "ids": []}


@pytest.mark.parametrize("text", ["", "{}", "[]", "no", '{"version":2}', '{"version":1}', '{"version":1,"choice":{}}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        states.load(path)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x" * 65, "é"])
def test_names_that_are_no_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name of a replay"):
        states.file_of(tmp_path, name)


def test_a_replay_is_run_by_one_process(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with states.exclusive_lock(path), pytest.raises(ConfigError, match="another process"), states.exclusive_lock(path):
        pass
    with states.exclusive_lock(path):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be stored"):
        states.save(tmp_path / "file" / "r.json", state())
    with pytest.raises(ConfigError, match="cannot be stored"), states.exclusive_lock(tmp_path / "file" / "r.json"):
        pass


def test_only_unused_read_models_are_deleted(tmp_path: Path) -> None:
    assert list(delete_read_models(tmp_path)) == []
    root = tmp_path / "ingress"
    for number in range(3):
        (root / str(number) / "view").mkdir(parents=True)
    (root / "1" / "deliveries").mkdir()
    with claim_instance(root) as running:
        found = {one.folder.relative_to(root): one.dropped for one in delete_read_models(tmp_path)}
        assert found == {
            Path(f"{number}/{name}"): number != running.number
            for number, name in ((0, "view"), (1, "view"), (1, "deliveries"), (2, "view"))
        }
    assert sorted(path.parent.name for path in root.glob("*/view")) == ["0"]
    assert not (root / "3").exists()
    assert [one.dropped for one in delete_read_models(tmp_path)] == [True]
