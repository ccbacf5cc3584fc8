"""docs/concepts/task-life-cycle.md against the machine: table, diagram and drop reasons are computed by driving it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from schemas.events import event
from schemas.records import Event, Status
from streams.state_machine import tasks
from streams.state_machine.rows import TaskRules
from streams.state_machine.tasks import CancelEffect, DeadLetterEffect, ResultEffect, Transition, WorkEffect
from tests.support.records import claimed, failure, finished, outcome, task, task_id

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/concepts/task-life-cycle.md").read_text(encoding="utf-8")
RULES = TaskRules(max_attempts=3, max_lost_workers=3)
ID = task_id()
NOW_MS, START_MS, DEADLINE_MS, EXPIRES_MS = 10_000, 300_000, 500_000, 900_000
LEASE_MS = 9_500
LEASE_OVER = event("lease_over", at_ms=1, task_id=ID, attempt=2)
CANCEL = event("cancel", at_ms=1, task_id=ID, owner="key-1")
ENDED = ("completed", "failed", "cancelled")
EFFECTS = {
    WorkEffect: "work record",
    ResultEffect: "result",
    CancelEffect: "control `cancel`",
    DeadLetterEffect: "dead letter",
}


def submit(row: Status | None, *, offset: int = 5, now_ms: int = NOW_MS) -> Transition:
    new = task(timeout_ms=DEADLINE_MS - 1_000, start_timeout_ms=START_MS - 1_000)
    return tasks.submitted(row, new, task_id=ID, offset=offset, created_ms=1_000, now_ms=now_ms, rules=RULES)


def rows() -> Mapping[str, Status | None]:
    """Build one row for each column."""
    queued = submit(None).row
    assert queued is not None
    held: Status = {**queued, "state": "processing", "attempt": 2, "worker": "w1", "started_ms": 2_000}
    running: Status = {**held, "progress": 20}
    ended: Status = {**held, "finished_ms": 3_000, "expires_ms": EXPIRES_MS, "status_code": 200, "result_offset": 1}
    return {
        "unknown": None,
        "queued": {**queued, "attempt": 2},
        "waiting": {**queued, "attempt": 2, "not_before_ms": 9_000},
        "processing": running,
        "completed": {**ended, "state": "completed"},
        "failed": {**ended, "state": "failed"},
        "cancelled": {**ended, "state": "cancelled"},
        "expired": {**ended, "state": "expired", "result_offset": None},
    }


def on(what: Event, *, now_ms: int = NOW_MS) -> Callable[[Status | None], Transition]:
    return lambda row: tasks.apply(row, what, now_ms=now_ms, rules=RULES)


def at_last_attempt(row: Status | None) -> Transition:
    last = None if row is None else Status(**{**row, "attempt": 3})
    return on(finished(ID, attempt=3, result=failure()))(last)


def gone(*, lost: bool, before: int = 0, streamed: bool = False) -> Callable[[Status | None], Transition | None]:
    def apply(row: Status | None) -> Transition | None:
        if row is None:
            return None
        changed = Status(**{**row, "lost_workers": before, "streamed": streamed})
        return tasks.worker_lost(changed, worker="w1", lost=lost, now_ms=NOW_MS, rules=RULES)

    return apply


def leased(what: Event, *, retries: int | None = None, now_ms: int = NOW_MS) -> Callable[[Status | None], Transition]:
    """Apply an event where the worker of a running task holds it by a lease that ends at LEASE_MS."""

    def apply(row: Status | None) -> Transition:
        if row is not None and row["state"] == "processing":
            row = {**row, "worker": "pull/w1", "lease_until_ms": LEASE_MS, "lease_retries": retries}
        return on(what, now_ms=now_ms)(row)

    return apply


EVENTS: Mapping[str, Callable[[Status | None], Transition | None]] = {
    "submitted": lambda row: submit(row, offset=6),
    "submitted, read again": lambda row: submit(row) if row else None,
    "submitted after its cancel": lambda row: (
        None if row else submit(tasks.apply(None, CANCEL, now_ms=1, rules=RULES).row)
    ),
    "submitted after its start timeout": lambda row: None if row else submit(row, now_ms=START_MS),
    "submitted after its deadline": lambda row: None if row else submit(row, now_ms=DEADLINE_MS),
    "claimed": on(claimed(ID, attempt=2)),
    "claimed by a second worker": on(claimed(ID, attempt=2, worker="w2")),
    "claimed for an old attempt": on(claimed(ID, attempt=1)),
    "progress": on(event("progress", at_ms=1, task_id=ID, attempt=2, worker="w1", progress=40)),
    "progress that is not higher": on(event("progress", at_ms=1, task_id=ID, attempt=2, worker="w1", progress=20)),
    "progress of an old attempt": on(event("progress", at_ms=1, task_id=ID, attempt=1, worker="w1", progress=40)),
    "progress by a second worker": on(event("progress", at_ms=1, task_id=ID, attempt=2, worker="w2", progress=40)),
    "finished successfully": on(finished(ID, attempt=2, result=outcome())),
    "finished with a final error": on(finished(ID, attempt=2, result=failure(retriable=False, status_code=400))),
    "finished with a retriable error": on(finished(ID, attempt=2, result=failure())),
    "the same in the middle of a stream": on(finished(ID, attempt=2, result=failure(chunks=3))),
    "the same at the last attempt": at_last_attempt,
    "the same too near the deadline": on(finished(ID, attempt=2, result=failure()), now_ms=DEADLINE_MS - 1),
    "finished for an old attempt": on(finished(ID, attempt=1)),
    "released": on(event("released", at_ms=1, task_id=ID, attempt=2, worker="w1")),
    "retry_due": on(event("retry_due", at_ms=1, task_id=ID, attempt=2, data=b"{}")),
    "cancel": on(CANCEL),
    "cancel by another tenant": on(event("cancel", at_ms=1, task_id=ID, owner="key-2")),
    "deadline": on(event("deadline", at_ms=1, task_id=ID), now_ms=DEADLINE_MS),
    "start deadline": on(event("deadline", at_ms=1, task_id=ID), now_ms=START_MS),
    "deadline, premature": on(event("deadline", at_ms=1, task_id=ID)),
    "worker stopped": gone(lost=False),
    "worker lost": gone(lost=True),
    "worker lost, the third": gone(lost=True, before=2),
    "worker lost in the middle of a stream": gone(lost=True, streamed=True),
    "lease expired": leased(LEASE_OVER),
    "lease expired, no retry left": leased(LEASE_OVER, retries=0),
    "lease expired, premature": leased(LEASE_OVER, now_ms=LEASE_MS - 1),
    "lease of an old attempt expired": leased(event("lease_over", at_ms=1, task_id=ID, attempt=1)),
    "finished by the lease holder": leased(finished(ID, attempt=2, worker="pull/w1")),
    "finished by another worker during a lease": leased(finished(ID, attempt=2, worker="w1")),
    "finished by a pull worker without a lease": on(finished(ID, attempt=2, worker="pull/w1")),
    "released by the lease holder": leased(event("released", at_ms=1, task_id=ID, attempt=2, worker="pull/w1")),
    "released by another worker during a lease": leased(event("released", at_ms=1, task_id=ID, attempt=2, worker="w1")),
    "expire": on(event("expire", at_ms=1, task_id=ID), now_ms=EXPIRES_MS),
    "expire, premature": on(event("expire", at_ms=1, task_id=ID)),
}


def shown(row: Status | None) -> str:
    """Name the state of a row as the columns do."""
    if row is None:
        return "removed"
    return "waiting" if row["state"] == "queued" and row["not_before_ms"] is not None else row["state"]


def cell(before: Status | None, step: Transition | None) -> str:
    """Tell what a step did."""
    if step is None:
        return ""
    if step.reason is not None:
        assert not step.effects
        return f"`{step.reason}`"
    parts = [f"**{shown(step.row)}**"]
    if parts[0] == "**waiting**":
        assert before is not None
        assert step.row is not None
        assert step.row["attempt"] == before["attempt"] + 1
        parts[0] += ", attempt + 1"
    return "; ".join([*parts, *(EFFECTS[type(effect)] for effect in step.effects)])


def table() -> str:
    """Render the table; completed, failed and cancelled must behave equally and share a column."""
    columns = [name for name in rows() if name not in ENDED[1:]]
    lines = [["event", *(name.replace(ENDED[0], "ended") for name in columns)], ["---"] * (len(columns) + 1)]
    for what, apply in EVENTS.items():
        cells = {name: cell(row, apply(row)) for name, row in rows().items()}
        assert len({cells[name] for name in ENDED}) == 1, f"{what} is not the same in all of {ENDED}"
        lines.append([what, *(cells[name] for name in columns)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def moves() -> Iterator[tuple[str, str]]:
    """Yield every change from one shown state to another."""
    for name, row in rows().items():
        for apply in EVENTS.values():
            step = apply(row)
            if step is not None and step.reason is None and shown(step.row) != name:
                yield name, shown(step.row)


def reasons() -> set[str]:
    """Collect every drop reason from the code."""
    found: set[str] = set()
    for name in (
        "state_machine/tasks",
        "transaction",
        "scheduler",
        "state_machine/batches",
        "batch_transaction",
    ):
        text = (ROOT / f"streams/{name}.py").read_text(encoding="utf-8")
        found |= set(re.findall(r'_count\("(\w+)"', text))
        found |= set(re.findall(r'ignored\(\w+, f?"(\w+?)(?:\{|")', text)) | set(
            re.findall(r'reasons\["(\w+)"\]', text)
        )
    reread = submit(rows()["queued"], offset=5).reason
    again = submit(rows()["queued"], offset=6).reason
    assert reread
    assert again
    return found | {reread, again}


def test_the_table_is_what_the_machine_does() -> None:
    expected = table()
    assert expected in PAGE, f"put this table into docs/concepts/task-life-cycle.md:\n\n{expected}"


def test_the_diagram_shows_every_move_and_no_other() -> None:
    diagram = PAGE.partition("```mermaid\n")[2].partition("```")[0]
    names = {"[*]": "unknown"}
    drawn = {
        (names.get(one, one), "removed" if other == "[*]" else other)
        for one, other in re.findall(r"^ *(\S+) --> (\S+)(?: *:|$)", diagram, flags=re.MULTILINE)
    }
    assert drawn == set(moves())


def test_every_drop_reason_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+?)_?(?:KIND)?` \|", PAGE, flags=re.MULTILINE)
    assert {reason.removesuffix("_") for reason in reasons()} == set(explained)


@pytest.mark.parametrize("name", ["max_attempts", "max_lost_workers", "retry_base_s", "retry_max_s", "lease_s"])
def test_the_limits_are_named_with_their_settings(name: str) -> None:
    assert f"`streams.{name}`" in PAGE
