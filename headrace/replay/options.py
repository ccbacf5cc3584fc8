"""The options that select the tasks of a replay and their destination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from core.errors import ConfigError
from headrace.replay.choice import ENDINGS, Choice, moment_ms, read_ids
from headrace.replay.state import Target
from schemas.topics import LEVELS
from schemas.validation import QUEUE_NAME

F = TypeVar("F", bound=Callable[..., Any])
LONGEST_TEXT = 256


def chosen(command: F) -> F:
    """Add the options that select tasks; repeated options are alternatives."""
    for option in (
        click.option("--ids", "ids_file", type=click.File("r"), help="A file of ids, one per line; - is stdin."),
        click.option(
            "--id", "one_by_one", metavar="ID", help="Only this task; the id may have any form.", multiple=True
        ),
        click.option(
            "--status", type=click.Choice(ENDINGS), help="Only this outcome; none: not finished.", multiple=True
        ),
        click.option("--model", metavar="MODEL", help="Only tasks for this model.", multiple=True),
        click.option("--owner", metavar="TENANT", help="Only tasks of this tenant.", multiple=True),
        click.option("--level", type=click.Choice(LEVELS), help="Only this level.  [both]", multiple=True),
        click.option("--queue", metavar="QUEUE", help="Only tasks of this queue.", multiple=True),
        click.option("--to", "until", metavar="TIME", help="Before this time.  [now]"),
        click.option("--from", "since", metavar="TIME", help="Since -2h, -7d or 2026-01-31T12:00:00Z.  [all]"),
        click.option("--with-replays", is_flag=True, help="Include tasks that are replays themselves."),
    ):
        command = option(command)
    return command


def choice_of(asked: dict[str, Any], *, now_ms: int) -> Choice:
    """Parse the options added by `chosen`; raises ConfigError."""
    since, until, file = asked["since"], asked["until"], asked["ids_file"]
    from_ms = None if since is None else moment_ms(since, now_ms=now_ms, field="--from")
    to_ms = None if until is None else moment_ms(until, now_ms=now_ms, field="--to")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise ConfigError("--from must be before --to")
    named = read_ids([*asked["one_by_one"], *(file or ())])
    if file is not None and not named:
        raise ConfigError("--ids contains no id")
    return Choice(
        from_ms=from_ms,
        to_ms=to_ms,
        levels=tuple(LEVELS.index(level) for level in dict.fromkeys(asked["level"])) or (0, 1),
        queues=asked["queue"],
        owners=asked["owner"],
        models=asked["model"],
        endings=asked["status"],
        ids=named,
        replays=asked["with_replays"],
    )


def target_of(queue_to: str | None, model_to: str | None, *, callbacks: bool, workers: bool) -> Target:
    """Check the destination; raises ConfigError."""
    if queue_to is not None and not QUEUE_NAME.fullmatch(queue_to):
        raise ConfigError("--queue-to must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -")
    if workers and queue_to is None:
        raise ConfigError("--by-workers needs --queue-to: it does not change the live queues")
    if model_to is not None and not 0 < len(model_to) <= LONGEST_TEXT:
        raise ConfigError(f"--model-to must be 1 to {LONGEST_TEXT} characters")
    return Target(queue_to=queue_to, model_to=model_to, callbacks=callbacks, workers=workers)
