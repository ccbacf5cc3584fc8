"""What people see of a replay: tables, a bar, and one sentence on each thing that could not be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from core.prices import text
from core.settings.models import ModelSettings
from headrace.replay.compare import VERDICTS, Group
from headrace.replay.estimate import Survey
from headrace.replay.state import State
from schemas.topics import level_name

PROBLEMS = {
    "body_missing": "the stored body is not there any more",
    "body_corrupt": "the stored body is not the one that was written",
    "body_foreign": "the record points to a stored body of another task",
    "body_without_model": "the body is no JSON with a model that could be replaced",
    "body_too_large_for_another_model": "the body is too large for its model to be replaced",
    "record_too_large": "the record would be too large",
    "record_expired": "the records were deleted before the replay came to them",
    "queue_refused": "the queue cannot be registered",
}

PASSED_OVER = {
    "lines": "they are lines of batches that were fed a second time, or too late",
    "refused": "they are dead letters, and no task came of them",
    "unreadable": "they are no tasks by these settings",
}


@contextmanager
def bar(what: str, *, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show progress on stderr, on a terminal only; yields a function of done, total and a remark."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn(),
               TextColumn("{task.fields[remark]}"))  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        shown = progress.add_task(what, total=None, remark="")
        yield lambda done, total, remark: progress.update(shown, completed=done, total=total, remark=remark)


def survey_tables(survey: Survey, prices: Mapping[str, ModelSettings], *, model_to: str | None) -> Iterator[Table]:
    """Render what a replay would do."""
    counts = _table("queue", "level", "model", "status", "tasks")
    for group, count in sorted(survey.tally.groups.items(), key=lambda item: (item[0].queue, item[0].level)):
        counts.add_row(
            *map(Text, (group.queue, level_name(group.level), group.model or "", group.ending, f"{count:,}"))
        )
    yield counts
    costs = _table("model", "tasks", "with known tokens", "prompt tokens", "completion tokens", "cost")
    for cost in survey.tally.costs(prices, model_to=model_to):
        name = f"{cost.model or ''} as {model_to}" if model_to else cost.model or ""
        money = "no price or no known tokens" if cost.cost is None else f"{text(cost.cost)} {cost.currency}"
        numbers = (cost.tasks, cost.counted, cost.prompt_tokens, cost.completion_tokens)
        costs.add_row(*map(Text, (name, *(f"{number:,}" for number in numbers), money)))
    yield costs


def survey_notes(survey: Survey) -> Iterator[str]:
    """Say what the tables do not."""
    yield f"{survey.tally.total:,} tasks chosen; {survey.read:,} records read."
    if survey.tally.stored:
        yield f"{survey.tally.stored:,} have their body in the object store; nobody looked whether it is still there."
    for reason, count in survey.passed_over.items():
        yield f"{count:,} records were passed over: {PASSED_OVER.get(reason, reason)}."
    if survey.missing_ids:
        some = ", ".join(survey.missing_ids[:5])
        yield f"{len(survey.missing_ids):,} ids were not found; their tasks are beyond reach or never were: {some}"
    for note in survey.notes:
        yield f"{note[0].upper()}{note[1:]}."


def outcome(state: State) -> Iterator[str]:
    """Say what a replay has done."""
    yield f"{state.written:,} tasks are written again by the replay {state.name}."
    for reason, found in sorted(state.problems.items()):
        some = f", such as {', '.join(found['ids'][:3])}" if found["ids"] else ""
        yield f"{found['count']:,} were left out, {PROBLEMS.get(reason, reason)}{some}."


def comparison_table(groups: Mapping[tuple[str, str, str], Group]) -> Table:
    """Render a comparison; of two figures the first is the original's."""
    table = _table("queue", "model", *VERDICTS, "p50 ms", "p95 ms", "prompt tokens", "completion tokens")
    for (queue, model, now), group in groups.items():
        figures = group.as_json()
        pairs = ("latency_p50_ms", "latency_p95_ms", "prompt_tokens", "completion_tokens")
        table.add_row(
            *map(Text, (queue, model if now in (model, "") else f"{model} → {now}")),
            *(Text(f"{figures[verdict]:,}") for verdict in VERDICTS),
            *(Text(" → ".join("–" if one is None else f"{one:,}" for one in figures[name])) for name in pairs),
        )
    return table


def _table(*names: str) -> Table:
    return Table(*(Column(name, overflow="fold") for name in names))
