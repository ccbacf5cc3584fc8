"""`headrace replay`, the time machine: past tasks run again, and what they answer now."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import orjson

from core.errors import ConfigError, NotFound, Unavailable
from core.settings.loader import LOCAL_KEY
from core.settings.models import Settings
from core.storage.blobs import open_blobs
from headrace.options import RunsByDefault, config_option, key_option, load_here, reported, settings_here
from headrace.output import json_output, print_lines
from headrace.replay import state as states
from headrace.replay import tables
from headrace.replay.answers import Comparison, Which, compared
from headrace.replay.choice import Choice, moment_ms
from headrace.replay.compare import VERDICTS, grouped
from headrace.replay.estimate import Survey, surveyed
from headrace.replay.options import choice_of, chosen, target_of
from headrace.replay.read_model import drop_read_models
from headrace.replay.run import ReplayOrder, opened, run
from headrace.replay.state import State, Target
from headrace.replay.worker import ShadowWorker, WorkerPlace

LOCAL_URL = "http://127.0.0.1:8080"
name_option = click.option("--name", metavar="NAME", help="What the replay is called.  [from the time]")
state_option = click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Its memory.  [DATA_DIR/replays/NAME.json]",
)


@click.group(cls=RunsByDefault)
def replay() -> None:
    """Run past tasks again, and compare what they answer. Without a command's name `run` is meant.

    The tasks are read from tasks.LEVEL, which keeps online ones for 24 h and offline ones for 15 days. Webhooks are
    sent again by `headrace webhooks redrive`.
    """


@replay.command(name="run")
@chosen
@click.option("--into", type=click.Choice(["live"]), help="Into the queues that they came from.")
@click.option("--queue-to", metavar="QUEUE", help="Into a shadow queue instead; made when it is new.")
@click.option("--by-workers", is_flag=True, help="Leave that queue to `replay serve`, or other workers that pull.")
@click.option("--model-to", metavar="MODEL", help="For another model: the body's model is replaced.")
@click.option("--with-callbacks", is_flag=True, help="Call the callback URLs and fill the reply topics again.")
@click.option("--dry-run", is_flag=True, help="Only count them, and estimate what they cost.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Most tasks per second.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@name_option
@state_option
@json_output
@config_option
def run_(
    into: str | None,
    queue_to: str | None,
    by_workers: bool,
    model_to: str | None,
    with_callbacks: bool,
    dry_run: bool,
    rate: float | None,
    yes: bool,
    name: str | None,
    state: Path | None,
    as_json: bool,
    config: Path | None,
    **asked: Any,
) -> None:
    """Repeat tasks: with new ids, the same owner, and replay_of set to the original.

    Into the live queues with --into live, into a shadow queue with --queue-to, or nowhere with --dry-run. Nobody is
    told of a repetition unless --with-callbacks is given; it never counts as a line of its batch. A run that was
    interrupted goes on with the same --name or --state; no task is repeated twice.
    """
    with reported():
        settings = settings_here(config)
        now_ms = time.time_ns() // 1_000_000
        name, path, known = _memory(settings, name, state, now_ms=now_ms)
        target = target_of(queue_to, model_to, callbacks=with_callbacks, workers=by_workers)
        order = ReplayOrder(name, choice_of(asked, now_ms=now_ms), target)
        if known is not None and not dry_run:
            _check_same(known, order, path)
            _finish(_run(settings, path, ReplayOrder(name, known.choice, known.target), rate), path, as_json=as_json)
            return
        if not dry_run and (into is None) == (queue_to is None):
            raise ConfigError("say where to: --into live, or --queue-to QUEUE; --dry-run only counts")
        if dry_run or not yes:
            found = _survey(settings, order.choice, now_ms=now_ms)
            _show_survey(settings, found, model_to=model_to, as_json=as_json and dry_run)
        if dry_run:
            return
        if not yes:
            where = f"the queue {queue_to}" if queue_to else "the live queues"
            click.confirm(f"Run them again in {where}? The model servers do all of this work.", abort=True, err=True)
        _finish(_run(settings, path, order, rate), path, as_json=as_json)


@replay.command()
@click.argument("name", required=False)
@state_option
@click.option("--queue", metavar="QUEUE", help="Everything that was ever repeated into this queue, instead.")
@click.option("--from", "since", metavar="TIME", help="With --queue: since this time.  [all that is retained]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="PATH", help="A JSON line per task.")
@json_output
@config_option
def diff(
    name: str | None,
    state: Path | None,
    queue: str | None,
    since: str | None,
    out: Path | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Compare the outcomes of a replay with those of the originals.

    equal: the same answer, ids and times left aside. changed: another one. failed: only the original went well.
    recovered: only the repetition did. unpaired: the original has no outcome or no stored answer any more.
    """
    with reported():
        settings = settings_here(config)
        now_ms = time.time_ns() // 1_000_000
        known = None
        if queue is None:
            if name is None and state is None:
                raise ConfigError("name the replay, its --state, or a --queue")
            _, path, known = _memory(settings, name, state, now_ms=now_ms)
            if known is None:
                raise NotFound(f"there is no replay in {path}")
        from_ms = None if since is None else moment_ms(since, now_ms=now_ms, field="--from")
        which = Which.of(known) if known is not None else Which(queue, None, from_ms)
        found = asyncio.run(_compare(settings, which, excerpts=out is not None))
        if out is not None:
            _write_lines(out, found)
    groups = grouped(found.pairs)
    pending = max(0, known.written - len(found.pairs)) if known is not None else None
    if as_json:
        total = {verdict: sum(pair.verdict == verdict for pair in found.pairs) for verdict in VERDICTS}
        rows = [
            {"queue": key[0], "model": key[1], "replay_model": key[2], **group.as_json()}
            for key, group in groups.items()
        ]
        click.echo(json.dumps({"tasks": len(found.pairs), "pending": pending, **total, "groups": rows}, indent=2))
        return
    print_lines(tables.comparison_table(groups))
    if pending:
        click.echo(
            f"{pending:,} repetitions have no outcome yet: they are queued, running, or duplicates by their key."
        )
    if found.superseded:
        click.echo(f"{found.superseded:,} earlier repetitions of the same tasks were left aside.")


@replay.command()
@click.argument("queue")
@click.option("--upstream", required=True, metavar="URL", help="The server that answers, a base URL ending in /v1.")
@key_option("--upstream-key", envvar="HEADRACE_UPSTREAM_API_KEY", metavar="KEY", help="Bearer key sent to it.")
@click.option("--url", envvar="HEADRACE_URL", default=LOCAL_URL, show_default=True, help="Where Headrace is.")
@key_option("--api-key", envvar="HEADRACE_API_KEY", default=LOCAL_KEY, help="A key with the scope admin.  [hr-local]")
@click.option("--concurrency", type=click.IntRange(1, 1_000), default=16, show_default=True, help="Calls at once.")
@click.option("--drain", is_flag=True, help="End when nothing is left to do.")
def serve(
    queue: str, upstream: str, upstream_key: str | None, url: str, api_key: str, concurrency: int, drain: bool
) -> None:
    """Answer the tasks of a shadow queue from another upstream.

    For what `headrace replay run --queue-to QUEUE --by-workers` has written: takes the tasks over HTTP and brings what
    the upstream answers, in one piece. Any number may run.
    """
    with reported():
        place = WorkerPlace(url, api_key, queue, upstream, upstream_key)
        with tables.bar("serving", unit="tasks") as step:
            worker = ShadowWorker(place, concurrency=concurrency, on_done=lambda done: step(done, done, ""))
            try:
                asyncio.run(worker.run(drain=drain))
            except KeyboardInterrupt:
                click.echo("Interrupted; what was not brought is handed out again when its lease ends.", err=True)
    click.echo(f"{worker.done:,} tasks are answered.")


@replay.command(name="read-model")
@config_option
def read_model(config: Path | None) -> None:
    """Have the ingresses of this machine make their read models anew.

    Removes those that no ingress holds; one that finds none at its start folds it from the topics again. The
    schedulers' tables are made anew in the same way when DATA_DIR/streams-LEVEL is removed while they are stopped.
    """
    with reported():
        found = list(drop_read_models(load_here(config).data_dir))
    for one in found:
        status = "is removed" if one.dropped else "is in use: stop its ingress first"
        click.echo(f"{one.folder} {status}.")
    if not found:
        click.echo("There is no read model here.")
    if not all(one.dropped for one in found):
        raise SystemExit(1)


def _memory(settings: Settings, name: str | None, path: Path | None, *, now_ms: int) -> tuple[str, Path, State | None]:
    """Return a replay's name, where its state is, and the state when it was begun before."""
    if name is None:
        named = path is not None and states.NAME.fullmatch(path.stem)
        name = path.stem if path is not None and named else states.new_name(now_ms)
    by_name = states.file_of(settings.data_dir, name)
    path = path or by_name
    known = states.load(path)
    return (known.name if known is not None else name), path, known


def _check_same(known: State, order: ReplayOrder, path: Path) -> None:
    """Refuse other options than those that a replay was begun with; none, or the same, are fine."""
    asked, begun = (replace(choice, from_ms=None, to_ms=None) for choice in (order.choice, known.choice))
    nothing = order.target == Target() and asked == Choice()
    if not nothing and (order.target, asked) != (known.target, begun):
        raise ConfigError(f"{path} was begun with other options: give only --name or --state to go on, or another name")


def _survey(settings: Settings, choice: Choice, *, now_ms: int) -> Survey:
    async def work() -> Survey:
        with tables.bar("reading", unit="records") as step:
            async with opened(settings) as lookup:
                return await surveyed(
                    settings, lookup, choice, now_ms=now_ms, on_read=lambda done, total: step(done, total, "")
                )

    return asyncio.run(work())


def _show_survey(settings: Settings, found: Survey, *, model_to: str | None, as_json: bool) -> None:
    if as_json:
        figures = found.tally.as_json(settings.models, model_to=model_to)
        more = {"read": found.read, "passed_over": found.passed_over, "missing_ids": found.missing_ids}
        click.echo(json.dumps({**figures, **more, "notes": found.notes}, indent=2))
        return
    print_lines(tables.survey_tables(found, settings.models, model_to=model_to))
    print_lines(tables.survey_notes(found))


def _run(settings: Settings, path: Path, order: ReplayOrder, rate: float | None) -> State:
    click.echo(f"The replay {order.name} keeps its memory in {path}.", err=True)
    try:
        with tables.bar("replaying", unit="records") as step:
            return asyncio.run(
                run(
                    settings,
                    path,
                    order,
                    rate=rate,
                    on_step=lambda done, total, written: step(done, total, f"{written:,} tasks"),
                )
            )
    except KeyboardInterrupt:
        click.echo(f"Interrupted; `headrace replay run --state {path}` goes on.", err=True)
        raise SystemExit(130) from None
    except Unavailable:
        if path.exists():
            click.echo(f"Broken off; `headrace replay run --state {path}` goes on.", err=True)
        raise


def _finish(state: State, path: Path, *, as_json: bool) -> None:
    if as_json:
        choice = state.choice
        missing = max(0, len(choice.ids) - state.written - state.left_out) if choice.ids else 0
        figures = {"name": state.name, "state": str(path), "written": state.written, "problems": state.problems}
        click.echo(json.dumps({**figures, "not_found": missing}, indent=2))
        return
    for sentence in tables.outcome(state):
        click.echo(sentence)
    click.echo(f"`headrace replay diff --state {path}` compares the answers.")


async def _compare(settings: Settings, which: Which, *, excerpts: bool) -> Comparison:
    read = 0
    with tables.bar("reading", unit="results") as step:

        def more(count: int) -> None:
            nonlocal read
            read += count
            step(read, read, "")

        async with opened(settings) as lookup:
            return await compared(settings, lookup, open_blobs(settings), which, excerpts=excerpts, on_read=more)


def _write_lines(path: Path, found: Comparison) -> None:
    try:
        with path.open("wb") as out:
            out.writelines(orjson.dumps(pair.as_json()) + b"\n" for pair in found.pairs)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
