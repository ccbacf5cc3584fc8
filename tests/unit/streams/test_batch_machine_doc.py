"""docs/concepts/batch-life-cycle.md against the batch machine: table and diagram are computed by driving it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from schemas import bitmap
from schemas.batches import Batch
from schemas.events import event
from schemas.records import Event
from streams.state_machine import batches
from streams.state_machine.batch_rows import initial_batch
from streams.state_machine.batches import BatchTransition
from tests.support.memory_batch_log import (
    CREATED_MS,
    RETENTION_MS,
    WINDOW_MS,
    batch_id,
    line,
    part,
    proposed,
    validated,
)

PAGE = (Path(__file__).parents[3] / "docs/concepts/batch-life-cycle.md").read_text(encoding="utf-8")
ONE = batch_id()
NOW_MS = CREATED_MS + 1_000
DUE = event("batch_due", at_ms=1, task_id=ONE)
Row = Batch | None


def rows() -> Mapping[str, Row]:
    """Build one row for each column: of 4 lines 3 are tasks; 1 of them has ended, or all where it was stopped."""
    new = initial_batch(proposed(ONE), offset=0, taken=lambda _: False)
    running: Batch = {**new, "total": 4, "fed": 3, "completed": 1, "ended": b"\x01", "written_to": 5, "last_result": 6}
    stopped: Batch = {**running, "ended": b"\x07"}
    return {
        "unknown": None,
        "validating": new,
        "in_progress": {**running, "state": "in_progress"},
        "finalizing": {**stopped, "state": "finalizing", "ending": "expired"},
        "cancelling": {**stopped, "state": "cancelling", "ending": "cancelled"},
        "ended": {**stopped, "state": "expired", "expired_ms": NOW_MS, "written": b"\x0f"},
    }


def on(what: Event, *, now_ms: int = NOW_MS) -> Callable[[Row], BatchTransition]:
    return lambda row: batches.apply(row, what, now_ms=now_ms, retention_ms=RETENTION_MS)


def read(number: int, *, owner: str = "key-1") -> Callable[[Row], BatchTransition]:
    def apply(row: Row) -> BatchTransition:
        made = line(row or rows()["validating"] or proposed(ONE), number, owner=owner)
        unknown = row is None or number >= row["fed"]
        return batches.line_submitted(row, made.task, task_id=made.task_id, unknown=unknown, has_result=False)

    return apply


def end(*numbers: int) -> Callable[[Row], BatchTransition | None]:
    def apply(row: Row) -> BatchTransition | None:
        if row is None or not row["fed"]:
            return None
        before = row
        if row["state"] == "in_progress":
            row = {**row, "fed": 4}
        for number in numbers:
            if number < row["fed"]:
                row = batches.line_ended(row, number, "completed", None, now_ms=NOW_MS)
        return BatchTransition(before) if row["ended"] == before["ended"] else BatchTransition(row)

    return apply


def stopping(what: Event) -> Callable[[Row], BatchTransition | None]:
    def apply(row: Row) -> BatchTransition | None:
        if row is None or row["state"] not in ("finalizing", "cancelling"):
            return None
        row = {**row, "ended": b"\x01"}
        step = on(what)(row)
        return (
            BatchTransition(rows()[row["state"]], line_error=step.line_error)
            if step.batch == row and step.reason is None
            else step
        )

    return apply


EVENTS: Mapping[str, Callable[[Row], BatchTransition | None]] = {
    "batch_validated": on(validated(ONE, 4)),
    "batch_validated without a line": on(validated(ONE, 0)),
    "batch_invalid": on(event("batch_invalid", at_ms=1, task_id=ONE)),
    "the next line": read(3),
    "an earlier line": read(1),
    "a line of another tenant": read(3, owner="key-2"),
    "a line ends": end(1),
    "the last line ends": end(1, 2, 3),
    "batch_part": on(part(ONE, 5, 7, {0})),
    "batch_part with another start": on(part(ONE, 4, 7, {0})),
    "batch_part, the last": on(part(ONE, 5, 7, {0, 1, 2, 3}, last=True)),
    "batch_part, the last, premature": on(part(ONE, 5, 7, {0}, last=True)),
    "batch_cancel": on(event("batch_cancel", at_ms=1, task_id=ONE, owner="key-1")),
    "batch_cancel by another tenant": on(event("batch_cancel", at_ms=1, task_id=ONE, owner="key-2")),
    "batch_due, after the window": on(DUE, now_ms=CREATED_MS + WINDOW_MS),
    "batch_due, after the retention": on(DUE, now_ms=NOW_MS + RETENTION_MS),
    "batch_due, premature": on(DUE),
    "batch_cancel, while lines are being ended": stopping(event("batch_cancel", at_ms=1, task_id=ONE)),
    "batch_due, while lines are being ended": stopping(DUE),
}


def cell(before: Row, step: BatchTransition | None) -> str:
    """Tell what a step did."""
    if step is None:
        return ""
    if step.reason is not None:
        return f"`{step.reason}`"
    if step.batch == before:
        return "–" if step.line_error is None else f"more lines end with `{step.line_error}`"
    after = step.batch
    parts = [f"**{after['state']}**" if after is not None else "**removed**"]
    if before is not None and after is not None:
        parts += ["fed + 1"] * (after["fed"] > before["fed"] and after["ended"] == before["ended"])
        parts += ["counted"] * (bitmap.count(after["ended"]) > bitmap.count(before["ended"]))
        parts += ["part"] * (len(after["parts"]) > len(before["parts"]))
    if step.line_error is not None:
        parts.append(f"lines end with `{step.line_error}`")
    return "; ".join(parts)


def table() -> str:
    """Render the table."""
    lines = [["what happens", *rows()], ["---"] * (len(rows()) + 1)]
    lines += [[what, *(cell(row, apply(row)) for row in rows().values())] for what, apply in EVENTS.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def moves() -> Iterator[tuple[str, str]]:
    """Yield every change from one state to another, whatever the states in which a batch ends are called."""
    for name, row in rows().items():
        for apply in EVENTS.values():
            step = apply(row)
            if row is None or step is None or step.reason is not None:
                continue
            before = "ended" if name == "ended" else row["state"]
            after = "removed" if step.batch is None else step.batch["state"]
            if after not in (before, row["state"]):
                yield before, after


def test_the_table_is_what_the_machine_does() -> None:
    expected = table()
    assert expected in PAGE, f"put this table into docs/concepts/batch-life-cycle.md:\n\n{expected}"


def test_the_diagram_shows_every_move_and_no_other() -> None:
    diagram = PAGE.rpartition("```mermaid\n")[2].partition("```")[0]
    ended = {"completed", "expired", "failed", "cancelled"}
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)(?: *:|$)", diagram, flags=re.MULTILINE))
    removed = set(re.findall(r"^ *(\w+) --> \[\*\]", diagram, flags=re.MULTILINE))
    assert removed == ended
    # A finalizing batch ends as what it began to end as; of the two the rows above have one.
    assert drawn == {move for move in moves() if move[0] != "ended"} | {("finalizing", "completed")}
