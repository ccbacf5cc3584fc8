"""The submitter with the scheduler that accepts its events and tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.settings.models import Settings
from dispatcher.batches import submitter as feeder_module
from dispatcher.batches.submitter import BatchSubmitter, FairShare
from schemas.broken_lines import outcome_of
from schemas.events import event
from tests.support.batch_doubles import Stage, input_file, request_line
from tests.support.waiting import eventually_async

WINDOW = 50


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, Settings.model_validate({"batches": {"max_in_flight": WINDOW, "max_lines": 1_000}}))


@asynccontextmanager
async def submitting(
    stage: Stage, *, judging: bool = True, **changes: Any
) -> AsyncIterator[tuple[Callable[[], Awaitable[None]], list[str]]]:
    """Run a submitter with a scheduler; yields the unfinished tasks, and the batches that could not be counted."""
    assert stage.row is not None
    changed, uncountable = asyncio.Event(), list[str]()
    submitter = BatchSubmitter(
        stage.settings,
        batch_id=stage.row["id"],
        row=stage.open_row,
        changed=changed,
        blobs=stage.blobs,
        producer=stage.producer,
        fair_share=FairShare(),
        uncountable=uncountable.append,
        clock=lambda: stage.now_ms,
        **changes,
    )

    async def judge() -> None:
        while True:
            if judging:
                stage.judge()
            changed.set()
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(submitter.run()), asyncio.create_task(judge())]

    async def over() -> None:
        await asyncio.wait_for(asyncio.shield(tasks[0]), 60)

    try:
        yield over, uncountable
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def fed(stage: Stage) -> int:
    assert stage.row is not None
    return stage.row["fed"]


async def test_a_valid_file_is_submitted_in_order_and_within_the_window(stage: Stage) -> None:
    replace = orjson.dumps({"model": "other", "stream": True})
    row = await stage.create(input_file(230), replace=replace)
    async with submitting(stage) as (over, _):
        for ended in range(0, 230, 23):
            await eventually_async(lambda ended=ended: fed(stage) == min(ended + WINDOW, 230))  # type: ignore[misc]
            stage.end(range(ended, ended + 23))
        await over()
    assert stage.row is not None
    assert (stage.row["state"], stage.row["total"], stage.row["completed"]) == ("finalizing", 230, 230)
    assert [task["batch_line"] for task in stage.tasks] == list(range(230))
    assert stage.reasons == []
    task = stage.tasks[7]
    assert orjson.loads(task["data"] or b"") == {
        "model": "other",
        "messages": [{"role": "user", "content": "say 7"}],
        "stream": False,
    }
    assert (task["model"], task["mode"], task["level"], task["custom_id"]) == ("other", "batch", 1, "c-7")
    assert (task["batch_id"], task["trace_id"], task["owner"], task["queue"]) == (
        row["id"],
        row["id"],
        "key-1",
        "batch",
    )
    assert task["created_ms"] + task["timeout_ms"] > row["expires_ms"]


async def test_an_invalid_file_is_reported_and_nothing_is_submitted(stage: Stage) -> None:
    await stage.create(request_line(1) + b'\n{"custom_id":"a"}\n')
    async with submitting(stage) as (over, _):
        await over()
    assert stage.row is not None
    assert stage.row["state"] == "failed"
    assert [(one["code"], one["line"]) for one in stage.row["errors"]] == [("missing_required_parameter", 2)]
    assert stage.tasks == []


async def test_a_line_that_is_no_json_is_a_task_that_says_so(stage: Stage) -> None:
    """It is not run: a dispatcher or the pull API ends it with its error."""
    bad = b'{"custom_id":"bad","body":{"text":"\\ud83d"}}'
    await stage.create(request_line(0) + b"\n\n" + bad + b"\n" + request_line(2) + b"\n")
    async with submitting(stage) as (over, _):
        await eventually_async(lambda: fed(stage) == 3)
        stage.end(range(3))
        await over()
    assert [task["custom_id"] for task in stage.tasks] == ["c-0", "bad", "c-2"]
    plain, task, _ = stage.tasks
    assert outcome_of(plain["content_type"], plain["data"], started_ms=5) is None
    outcome = outcome_of(task["content_type"], task["data"], started_ms=5)
    assert outcome is not None
    assert (outcome["error_code"], outcome["retriable"], outcome["started_ms"]) == ("invalid_json_line", False, 5)
    message = outcome["error_message"] or ""
    assert message.startswith("Line 3: This line is no valid JSON at column ")
    assert "surrogate" in message


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        ({"uri": "files/none"}, "file_unreadable"),
        ({"sha256": "0" * 64}, "file_unreadable"),
        ({"size": 10**9}, "file_too_large"),
    ],
)
async def test_a_file_that_is_not_there_or_not_what_it_was_fails_the_batch(
    stage: Stage, blob: dict[str, object], code: str
) -> None:
    row = await stage.create(input_file(3))
    row["input"] = {**row["input"], **blob}  # type: ignore[typeddict-item]
    async with submitting(stage) as (over, _):
        await over()
    assert stage.row is not None
    assert [one["code"] for one in stage.row["errors"]] == [code]


async def test_a_new_submitter_continues_at_the_exact_line(stage: Stage) -> None:
    await stage.create(b"\n" + input_file(120), state="in_progress", total=120, fed=33)
    async with submitting(stage):
        await eventually_async(lambda: fed(stage) == WINDOW)
    assert [task["batch_line"] for task in stage.tasks] == list(range(33, WINDOW))


async def test_lines_that_were_not_accepted_are_submitted_again(stage: Stage) -> None:
    await stage.create(input_file(20), state="in_progress", total=20)
    async with submitting(stage, judging=False, stall_timeout_s=0.2) as (over, _):
        await eventually_async(lambda: len(stage.producer.written) == 20)
        stage.producer.written.clear()  # as after a lost write
        await eventually_async(lambda: len(stage.producer.written) >= 20)
        stage.judge()
        await over()
    assert fed(stage) == 20


async def test_a_stopped_batch_is_not_submitted_further(stage: Stage) -> None:
    row = await stage.create(input_file(200), state="in_progress", total=200)
    async with submitting(stage) as (over, _):
        await eventually_async(lambda: fed(stage) == WINDOW)
        stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
        await over()
    assert len(stage.tasks) == WINDOW
    assert stage.reasons == []


async def test_kafka_that_is_away_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder_module, "RETRY_DELAY_S", 0.01)
    await stage.create(input_file(10))
    stage.producer.blocked = True
    async with submitting(stage) as (over, _):
        await eventually_async(lambda: stage.producer.writes)
        stage.producer.blocked = False
        await eventually_async(lambda: fed(stage) == 10)
        await over()


async def test_large_bodies_go_to_the_object_store(stage: Stage) -> None:
    large = request_line(0, body={"model": "m", "prompt": "x" * 300_000})
    await stage.create(large + b"\n" + request_line(1), state="in_progress", total=2)
    async with submitting(stage) as (over, _):
        await over()
    first, second = stage.tasks
    assert first["data"] is None
    assert first["data_ref"] is not None
    assert orjson.loads(await stage.blobs.get(first["data_ref"]))["prompt"] == "x" * 300_000
    assert second["data_ref"] is None


async def test_a_batch_that_is_stopped_before_its_file_was_counted_is_counted_then(stage: Stage) -> None:
    row = await stage.create(input_file(30))
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    async with submitting(stage) as (over, uncountable):
        await over()
    assert stage.row is not None
    assert (stage.row["state"], stage.row["total"], uncountable) == ("cancelling", 30, [])


async def test_a_file_that_cannot_be_counted_is_reported(stage: Stage) -> None:
    row = await stage.create(b"nonsense")
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    async with submitting(stage) as (over, uncountable):
        await over()
    assert uncountable == [row["id"]]
    assert stage.producer.written == []
