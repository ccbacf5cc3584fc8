"""The task that repeats another."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headrace.replay.choice import Choice
from headrace.replay.copy import TIMEOUT_MS, ReplayedTask, replayed_task, with_model
from headrace.replay.selection import Selection, model_of
from headrace.replay.state import State, Target
from schemas import ids
from schemas.codec import TASK
from schemas.headers import find
from schemas.partitioning import home_partition, queue_number
from schemas.records import Task
from schemas.validation import check_task
from tests.support.records import task, task_id

NOW_MS = 1_795_000_000_000


def state(*, widths: dict[str, int] | None = None, **target: Any) -> State:
    return State(
        name="r",
        created_ms=NOW_MS,
        start_s=1_794_999_123,
        choice=Choice(),
        target=Target(**target),
        spans=[],
        widths=widths or {},
    )


def copy_of(old: Task, *, of: str | None = None, partition: int = 3, offset: int = 42, **options: Any) -> ReplayedTask:
    original = of or task_id(partition=partition)
    pick = Selection(0, partition, offset, original, old, model_of(old), None)
    return replayed_task(pick, state(**options), partitions=6, now_ms=NOW_MS)


def test_owner_and_request_stay_and_everybody_is_left_in_peace() -> None:
    old = task(
        id=task_id(),
        mode="blocking",
        callback_url="http://a/b",
        callback_events=["start"],
        idempotency_key="k",
        batch_id="batch_1",
        batch_line=3,
        custom_id="c",
        reply_topic="t",
        timeout_ms=1_000,
        start_timeout_ms=500,
        run_timeout_ms=700,
        retention_ms=900,
        trace_id="t-1",
        user="u",
    )
    original = task_id(partition=3)
    new = copy_of(old, of=original).task
    kept = ("queue", "level", "endpoint", "data", "owner", "model", "trace_id", "content_type", "user")
    for name in (*kept, "run_timeout_ms", "retention_ms"):
        assert new[name] == old[name], name  # type: ignore[literal-required]
    assert (new["callback_url"], new["callback_events"], new["reply_topic"]) == (None, [], None)
    assert (new["batch_id"], new["batch_line"], new["custom_id"]) == (None, -1, None)
    assert (new["mode"], new["created_ms"], new["timeout_ms"], new["start_timeout_ms"]) == (
        "callback",
        NOW_MS,
        TIMEOUT_MS,
        0,
    )
    assert new["replay_of"] == original
    check_task(new)


def test_callbacks_come_back_when_they_are_asked_for_but_no_batch() -> None:
    old = task(callback_url="http://a/b", callback_events=["start"], reply_topic="t", batch_id="batch_1", custom_id="c")
    new = copy_of(old, callbacks=True).task
    assert (new["callback_url"], new["callback_events"], new["reply_topic"]) == ("http://a/b", ["start"], "t")
    assert (new["batch_id"], new["custom_id"]) == (None, None)


def test_a_stream_stays_a_stream_so_that_its_tokens_are_counted() -> None:
    assert copy_of(task(mode="streaming")).task["mode"] == "streaming"


def test_the_id_depends_on_the_place_of_the_original_alone() -> None:
    one, again = copy_of(task()), copy_of(task(), of=task_id(partition=3))
    assert one.id == again.id
    assert one.id != copy_of(task(), offset=43).id
    assert one.id != copy_of(task(), partition=2).id
    assert ids.parse(str(one.id)) == one.id
    assert (one.id.partition, one.id.mode, one.id.queue_number) == (3, "R", queue_number("chat"))


def test_a_shadow_queue_with_a_width_keeps_to_its_slice() -> None:
    slice_ = {home_partition("shadow", number, width=2, partitions=6) for number in range(2)}
    made = {copy_of(task(), partition=n, queue_to="shadow", widths={"shadow": 2}).id for n in range(6)}
    assert {one.partition for one in made} == slice_
    assert len(made) == 6


def test_duplicates_stay_duplicates_and_match_no_client_key() -> None:
    one, twin = (copy_of(task(idempotency_key="k"), offset=n).task for n in (1, 2))
    other = copy_of(task(idempotency_key="k", queue="b"), queue_to="chat").task
    assert one["idempotency_key"] == twin["idempotency_key"] != "k"
    assert other["idempotency_key"] != one["idempotency_key"], "two queues may have used one key"


def test_the_record_says_without_decoding_whose_it_is() -> None:
    copy = copy_of(task(), queue_to="shadow", model_to="n")
    record = copy.record(now_ms=NOW_MS)
    assert record.key == str(copy.id).encode()
    assert find(record.headers, "x-queue") == b"shadow"
    assert find(record.headers, "x-owner") == b"key-1"
    written = TASK.decode(record.value or b"")
    assert (written["model"], written["queue"], written["id"]) == ("n", "shadow", str(copy.id))


@pytest.mark.parametrize("body", [b"", b"no", b"[1]", b'"m"', b"{}", b'{"messages":[]}', b"\xff"])
def test_only_a_json_object_with_a_model_can_be_for_another(body: bytes) -> None:
    assert with_model(body, "n") is None


def test_the_rest_of_a_body_stays() -> None:
    assert with_model(b'{"a":1.5,"model":"m","b":["\xc3\xa9"]}', "n") == b'{"a":1.5,"model":"n","b":["\xc3\xa9"]}'


@pytest.mark.parametrize("number", [b"123456789012345678901234567890", b"0.12345678901234567890", b"1e400"])
def test_numbers_are_not_rounded(number: bytes) -> None:
    assert with_model(b'{"seed":%b,"model":"m"}' % number, "n") == b'{"seed":%b,"model":"n"}' % number


@pytest.mark.parametrize(
    ("old", "model"),
    [
        (task(), "m"),
        (task(model=None), "m"),
        (task(model=None, data='{"model":"text"}'), "text"),
        (task(model=None, data=orjson.dumps({"model": 7})), None),
        (task(model=None, data=b"no"), None),
        (task(model=None, data=None), None),
    ],
)
def test_the_model_is_known_from_the_body_when_the_record_does_not_say(old: Task, model: str | None) -> None:
    assert model_of(old) == model
