"""Output of the replay commands: tables, a progress bar, and a sentence for each problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.prices import text
from core.settings.models import ModelSettings
from headrace.output import Column, table_lines, terminal_width
from headrace.replay.compare import VERDICTS, ComparisonGroup
from headrace.replay.estimate import Estimate
from headrace.replay.state import State
from schemas.topics import level_name

PROBLEMS = {
    "body_missing": "the stored body is missing",
    "body_corrupt": "the stored body is corrupt",
    "body_foreign": "the record refers to a stored body of another task",
    "body_without_model": "the body is not JSON with a model to replace",
    "body_too_large_for_another_model": "the body is too large to replace its model",
    "record_too_large": "the record would be too large",
    "record_expired": "the records were deleted before the replay reached them",
    "queue_refused": "the queue cannot be registered",
}

PASSED_OVER = {
    "lines": "they are batch lines that were submitted twice, or too late",
    "refused": "they are dead letters that never became tasks",
    "unreadable": "they are not tasks under these settings",
}


@contextmanager
def bar(what: str, *, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar on stderr, on a terminal only; yields a function of done, total and a remark."""
    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        shown = progress.add_task(what, total=None, remark="")
        yield lambda done, total, remark: progress.update(shown, completed=done, total=total, remark=remark)


SURVEY_COLUMNS = tuple(Column(head, head) for head in ("queue", "level", "model", "status", "tasks"))
COST_COLUMNS = tuple(
    Column(head, head, rank)
    for head, rank in (
        ("model", 0),
        ("tasks", 0),
        ("cost", 1),
        ("prompt-tokens", 2),
        ("completion-tokens", 3),
        ("known-tokens", 4),
    )
)
COMPARISON_COLUMNS = (
    Column("queue", "queue"),
    Column("model", "model"),
    *(Column(verdict, verdict) for verdict in VERDICTS),
    Column("p50-ms", "p50", 1),
    Column("p95-ms", "p95", 2),
    Column("prompt-tokens", "prompt", 3),
    Column("completion-tokens", "completion", 4),
)


def survey_tables(survey: Estimate, prices: Mapping[str, ModelSettings], *, model_to: str | None) -> Iterator[str]:
    """Yield the lines of two tables: the tasks that a replay would submit, and the cost."""
    counts = [
        (group.queue, level_name(group.level), group.model or "", group.ending, f"{count:,}")
        for group, count in sorted(survey.tally.groups.items(), key=lambda item: (item[0].queue, item[0].level))
    ]
    yield from table_lines(SURVEY_COLUMNS, counts, width=terminal_width())
    yield ""
    costs = []
    for cost in survey.tally.costs(prices, model_to=model_to):
        name = f"{cost.model or ''} as {model_to}" if model_to else cost.model or ""
        money = "no price or no known tokens" if cost.cost is None else f"{text(cost.cost)} {cost.currency}"
        numbers = (cost.prompt_tokens, cost.completion_tokens, cost.counted)
        costs.append((name, f"{cost.tasks:,}", money, *(f"{number:,}" for number in numbers)))
    yield from table_lines(COST_COLUMNS, costs, width=terminal_width())


def survey_notes(survey: Estimate) -> Iterator[str]:
    """Yield remarks on the tables."""
    yield f"{survey.tally.total:,} tasks selected; {survey.read:,} records read."
    if survey.tally.stored:
        yield f"{survey.tally.stored:,} have their body in the object store; its presence was not checked."
    for reason, count in survey.passed_over.items():
        yield f"{count:,} records were skipped: {PASSED_OVER.get(reason, reason)}."
    if survey.missing_ids:
        some = ", ".join(survey.missing_ids[:5])
        yield f"{len(survey.missing_ids):,} ids were not found; their tasks are not retained or never existed: {some}"
    for note in survey.notes:
        yield f"{note[0].upper()}{note[1:]}."


def outcome(state: State) -> Iterator[str]:
    """Yield the summary of a replay."""
    yield f"{state.written:,} tasks were submitted again by the replay {state.name}."
    for reason, found in sorted(state.problems.items()):
        some = f", such as {', '.join(found['ids'][:3])}" if found["ids"] else ""
        yield f"{found['count']:,} were skipped: {PROBLEMS.get(reason, reason)}{some}."


def comparison_table(groups: Mapping[tuple[str, str, str], ComparisonGroup]) -> Iterator[str]:
    """Yield the lines of a comparison; figures are original and replay."""
    rows = []
    for (queue, model, now), group in groups.items():
        figures = group.as_json()
        pairs = ("latency_p50_ms", "latency_p95_ms", "prompt_tokens", "completion_tokens")
        rows.append(
            (
                queue,
                model if now in (model, "") else f"{model} → {now}",
                *(f"{figures[verdict]:,}" for verdict in VERDICTS),
                *(" → ".join("–" if one is None else f"{one:,}" for one in figures[name]) for name in pairs),
            )
        )
    yield from table_lines(COMPARISON_COLUMNS, rows, width=terminal_width())
