"""A recorded batch: records written by an older version, and the state records that they must always produce.

A change of the machine or of a schema that breaks this breaks the logs of those who upgrade.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas.batches import Batch
from schemas.codec import EVENT, TASK
from schemas.records import Event
from streams.intake.decode import Submission
from tests.support.memory_batch_log import HOME, BatchLog

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "golden/batch.json").read_text())
RENAMED = {
    "early_last_part": "premature_last_part",
    "foreign_batch_cancel": "not_owner_batch_cancel",
    "late_finished": "stale_finished",
    "line_ahead": "line_gap",
    "misfit_part": "invalid_part",
}
"""Reasons that have other names than when the batch was recorded."""


def read(topic: str, value: str) -> Submission | Event:
    if topic == "events":
        return EVENT.decode(bytes.fromhex(value))
    task = TASK.decode(bytes.fromhex(value))
    return Submission(task["id"] or "", task, task["created_ms"], None)


def shown(batch: Batch) -> dict[str, Any]:
    """Return what of a row must never change."""
    row: dict[str, Any] = {**batch, "ended": batch["ended"].hex(), "written": batch["written"].hex()}
    names = (
        "state",
        "ending",
        "stamp_s",
        "total",
        "fed",
        "completed",
        "failed",
        "ended",
        "written",
        "written_to",
        "last_result",
        "parts",
        "usage",
        "in_progress_ms",
        "finalizing_ms",
        "cancelling_ms",
        "cancelled_ms",
    )
    return {name: row[name] for name in names}


async def test_a_recorded_batch_has_the_rows_that_it_had() -> None:
    log = BatchLog()
    for step in RECORDED["steps"]:
        await log.process((step["offset"], read(step["topic"], step["value"])), now_ms=step["now_ms"])
        assert shown(log.batch(RECORDED["id"])) == step["row"], step["what"]
    assert [[one["id"], one["state"], one["error_code"]] for one in log.results] == RECORDED["results"]
    assert dict(log.reasons) == {RENAMED.get(name, name): count for name, count in RECORDED["notes"].items()}
    assert {home for home, _ in log.batches.values} == {HOME}


async def test_read_again_it_changes_nothing() -> None:
    log = BatchLog()
    for _ in range(2):
        for step in RECORDED["steps"]:
            await log.process((step["offset"], read(step["topic"], step["value"])), now_ms=step["now_ms"])
        assert shown(log.batch(RECORDED["id"])) == RECORDED["steps"][-1]["row"]
        assert len(log.results) == len(RECORDED["results"])
