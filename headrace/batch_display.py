"""How the command line shows batches: a progress bar, a table, and one batch."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from headrace.output import Column, Output, show_table

Batch = dict[str, Any]
WAITS = {
    "validating": "checking the file",
    "in_progress": "running",
    "finalizing": "writing the files",
    "cancelling": "cancelling",
}
COLUMNS = (
    Column("id", "id"),
    Column("status", "status"),
    Column("created", "created", 3),
    Column("done", "done", 1),
    Column("failed", "failed", 2),
    Column("endpoint", "endpoint", 4),
    Column("model", "model", 5),
)
MAX_ERRORS = 20


class Rate(ProgressColumn):
    """Requests per second."""

    def render(self, task: Task) -> Text:
        """Render it."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="progress.data.speed")


def follow(batches: Iterable[Batch]) -> Batch:
    """Show a progress bar on stderr until the last state, and return that."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
    batch: Batch = {}
    with bar:
        shown = bar.add_task("waiting", total=None, failed="")
        for batch in batches:
            counts = batch["request_counts"] or {"total": 0, "completed": 0, "failed": 0}
            bar.update(
                shown,
                total=counts["total"] or None,
                completed=counts["completed"] + counts["failed"],
                description=WAITS.get(batch["status"], batch["status"]),
                failed=f"{counts['failed']} failed" if counts["failed"] else "",
            )
    return batch


def show_batches(batches: Iterable[Batch], *, output: Output) -> None:
    """Print batches as a table."""
    rows = []
    for batch in batches:
        counts = batch["request_counts"] or {"total": 0, "completed": 0, "failed": 0}
        done = f"{counts['completed'] + counts['failed']}/{counts['total']}"
        rows.append({**batch, "created": moment(batch["created_at"])[:16], "done": done, "failed": counts["failed"]})
    show_table(rows, COLUMNS, output=output, nothing="No batches found.")


def words(batch: Batch) -> str:
    """Return the members of a batch, one per line."""
    counts, usage = batch["request_counts"] or {}, batch["usage"] or {}
    lines = {
        "id": batch["id"],
        "status": batch["status"],
        "endpoint": batch["endpoint"],
        "model": batch["model"],
        "requests": ", ".join(f"{counts[name]} {name}" for name in ("total", "completed", "failed") if name in counts),
        "tokens": f"{usage['input_tokens']} in, {usage['output_tokens']} out" if usage.get("total_tokens") else None,
        "window": batch["completion_window"],
        "input": batch["input_file_id"],
        "output": batch["output_file_id"],
        "errors": batch["error_file_id"],
        **{name.removesuffix("_at"): moment(at) for name, at in batch.items() if name.endswith("_at") and at},
        **{f"metadata.{key}": value for key, value in (batch["metadata"] or {}).items()},
    }
    return "\n".join(f"{name:<14}{value}" for name, value in lines.items() if value)


def faults(batch: Batch) -> list[str]:
    """Return the errors of a batch's file, one sentence each."""
    found = (batch["errors"] or {}).get("data", [])
    sentences = [f"{_where(error)}{error['message']} ({error['code']})" for error in found[:MAX_ERRORS]]
    return sentences + ([f"… and {len(found) - MAX_ERRORS} more"] if len(found) > MAX_ERRORS else [])


def ended(batch: Batch) -> str:
    """Describe in a sentence how a batch ended."""
    counts = batch["request_counts"] or {"total": 0, "completed": 0, "failed": 0}
    rest = counts["total"] - counts["completed"] - counts["failed"]
    left = f", {rest} did not run" if rest > 0 else ""
    return (
        f"{batch['id']} {batch['status']}: {counts['completed']} of {counts['total']} requests completed, "
        f"{counts['failed']} failed{left}"
    )


def moment(at_s: int) -> str:
    """Format epoch seconds."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def say(text: str) -> None:
    """Print to standard error."""
    click.echo(text, err=True)


def _where(error: dict[str, Any]) -> str:
    return "" if error["line"] is None else f"line {error['line']}: "
