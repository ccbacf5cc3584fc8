"""`headrace replay`: run past tasks again, and compare the results."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import orjson

from core.clock import epoch_ms
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
from headrace.replay.estimate import Estimate, estimated
from headrace.replay.options import choice_of, chosen, target_of
from headrace.replay.read_model import delete_read_models
from headrace.replay.run import ReplayOrder, opened, run
from headrace.replay.state import State, Target
from headrace.replay.worker import ShadowWorker, WorkerPlace

LOCAL_URL = "http://127.0.0.1:8080"
name_option = click.option("--name", metavar="NAME", help="Name of the replay.  [from the time]")
state_option = click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="State file.  [DATA_DIR/replays/NAME.json]",
)


@click.group(cls=RunsByDefault)
def replay() -> None:
    """Run past tasks again, and compare the results. Without a subcommand it runs `run`.

    The tasks are read from tasks.LEVEL, where online tasks are retained for 24 h and offline ones for 15 days. To
    resend webhooks use `headrace webhooks redrive`.
    """


@replay.command(name="run")
@chosen
@click.option("--into", type=click.Choice(["live"]), help="Submit them to their original queues.")
@click.option("--queue-to", metavar="QUEUE", help="Submit them to a shadow queue; it is registered if new.")
@click.option("--by-workers", is_flag=True, help="Serve that queue with `replay serve` or other pull workers.")
@click.option("--model-to", metavar="MODEL", help="Replace the model in the body.")
@click.option("--with-callbacks", is_flag=True, help="Also send their webhooks and write to their reply topics.")
@click.option("--dry-run", is_flag=True, help="Only count them, and estimate the cost.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Maximum tasks per second.")
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
    """Submit past tasks again, with new ids, the same tenant, and replay_of set to the original id.

    Use --into live for the original queues, --queue-to for a shadow queue, or --dry-run to submit nothing. Webhooks are
    sent only with --with-callbacks; replayed batch lines do not belong to their batch. An interrupted run is resumed
    with the same --name or --state; no task is submitted twice.
    """
    with reported():
        settings = settings_here(config)
        now_ms = epoch_ms()
        name, path, known = _memory(settings, name, state, now_ms=now_ms)
        target = target_of(queue_to, model_to, callbacks=with_callbacks, workers=by_workers)
        order = ReplayOrder(name, choice_of(asked, now_ms=now_ms), target)
        if known is not None and not dry_run:
            _check_same(known, order, path)
            _finish(_run(settings, path, ReplayOrder(name, known.choice, known.target), rate), path, as_json=as_json)
            return
        if not dry_run and (into is None) == (queue_to is None):
            raise ConfigError("give a destination: --into live, or --queue-to QUEUE; --dry-run only counts")
        if dry_run or not yes:
            found = _survey(settings, order.choice, now_ms=now_ms)
            _show_survey(settings, found, model_to=model_to, as_json=as_json and dry_run)
        if dry_run:
            return
        if not yes:
            where = f"the queue {queue_to}" if queue_to else "the live queues"
            click.confirm(f"Run them again in {where}? This causes load on the model servers.", abort=True, err=True)
        _finish(_run(settings, path, order, rate), path, as_json=as_json)


@replay.command()
@click.argument("name", required=False)
@state_option
@click.option("--queue", metavar="QUEUE", help="Compare all tasks that were replayed into this queue instead.")
@click.option("--from", "since", metavar="TIME", help="With --queue: since this time.  [all retained]")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="PATH", help="Write one JSON line per task."
)
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
    """Compare the results of a replay with those of the originals.

    equal: same response, ignoring ids and times. changed: different response. failed: only the original succeeded.
    recovered: only the replay succeeded. unpaired: the original has no result, or it is no longer retained.
    """
    with reported():
        settings = settings_here(config)
        now_ms = epoch_ms()
        known = None
        if queue is None:
            if name is None and state is None:
                raise ConfigError("give the name of the replay, its --state, or a --queue")
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
            f"{pending:,} replayed tasks have no result yet: they are queued, running, or duplicates by their key."
        )
    if found.superseded:
        click.echo(f"{found.superseded:,} earlier replays of the same tasks were ignored.")


@replay.command()
@click.argument("queue")
@click.option("--upstream", required=True, metavar="URL", help="Model server, a base URL ending in /v1.")
@key_option("--upstream-key", envvar="HEADRACE_UPSTREAM_API_KEY", metavar="KEY", help="Bearer key sent to it.")
@click.option("--url", envvar="HEADRACE_URL", default=LOCAL_URL, show_default=True, help="URL of the ingress.")
@key_option("--api-key", envvar="HEADRACE_API_KEY", default=LOCAL_KEY, help="A key with the scope admin.  [hr-local]")
@click.option(
    "--concurrency", type=click.IntRange(1, 1_000), default=16, show_default=True, help="Maximum concurrent calls."
)
@click.option("--drain", is_flag=True, help="Exit when the queue is empty.")
def serve(
    queue: str, upstream: str, upstream_key: str | None, url: str, api_key: str, concurrency: int, drain: bool
) -> None:
    """Run the tasks of a shadow queue with another upstream.

    For tasks of `headrace replay run --queue-to QUEUE --by-workers`: a pull worker that takes tasks over HTTP, calls
    the upstream and completes them with its response. Any number may run.
    """
    with reported():
        place = WorkerPlace(url, api_key, queue, upstream, upstream_key)
        with tables.bar("serving", unit="tasks") as step:
            worker = ShadowWorker(place, concurrency=concurrency, on_done=lambda done: step(done, done, ""))
            try:
                asyncio.run(worker.run(drain=drain))
            except KeyboardInterrupt:
                click.echo("Interrupted; unfinished tasks are assigned again when their leases expire.", err=True)
    click.echo(f"{worker.done:,} tasks completed.")


@replay.command(name="read-model")
@config_option
def read_model(config: Path | None) -> None:
    """Delete the read models on this machine, so that ingresses rebuild them.

    Deletes those not in use; an ingress without one rebuilds it from the topics at its start. The schedulers' tables
    are rebuilt in the same way when DATA_DIR/streams-LEVEL is deleted while they are stopped.
    """
    with reported():
        found = list(delete_read_models(load_here(config).data_dir))
    for one in found:
        status = "is removed" if one.dropped else "is in use: stop its ingress first"
        click.echo(f"{one.folder} {status}.")
    if not found:
        click.echo("No read models found.")
    if not all(one.dropped for one in found):
        raise SystemExit(1)


def _memory(settings: Settings, name: str | None, path: Path | None, *, now_ms: int) -> tuple[str, Path, State | None]:
    """Return the name of a replay, its state file, and its state if it exists."""
    if name is None:
        named = path is not None and states.NAME.fullmatch(path.stem)
        name = path.stem if path is not None and named else states.new_name(now_ms)
    by_name = states.file_of(settings.data_dir, name)
    path = path or by_name
    known = states.load(path)
    return (known.name if known is not None else name), path, known


def _check_same(known: State, order: ReplayOrder, path: Path) -> None:
    """Reject options that differ from those at the start of the replay; none, or the same, are accepted."""
    asked, begun = (replace(choice, from_ms=None, to_ms=None) for choice in (order.choice, known.choice))
    nothing = order.target == Target() and asked == Choice()
    if not nothing and (order.target, asked) != (known.target, begun):
        raise ConfigError(
            f"{path} was started with other options: give only --name or --state to resume it, or another name"
        )


def _survey(settings: Settings, choice: Choice, *, now_ms: int) -> Estimate:
    async def work() -> Estimate:
        with tables.bar("reading", unit="records") as step:
            async with opened(settings) as lookup:
                return await estimated(
                    settings, lookup, choice, now_ms=now_ms, on_read=lambda done, total: step(done, total, "")
                )

    return asyncio.run(work())


def _show_survey(settings: Settings, found: Estimate, *, model_to: str | None, as_json: bool) -> None:
    if as_json:
        figures = found.tally.as_json(settings.models, model_to=model_to)
        more = {"read": found.read, "passed_over": found.passed_over, "missing_ids": found.missing_ids}
        click.echo(json.dumps({**figures, **more, "notes": found.notes}, indent=2))
        return
    print_lines(tables.survey_tables(found, settings.models, model_to=model_to))
    print_lines(tables.survey_notes(found))


def _run(settings: Settings, path: Path, order: ReplayOrder, rate: float | None) -> State:
    click.echo(f"The state of replay {order.name} is stored in {path}.", err=True)
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
        click.echo(f"Interrupted; resume with `headrace replay run --state {path}`.", err=True)
        raise SystemExit(130) from None
    except Unavailable:
        if path.exists():
            click.echo(f"Stopped by an error; resume with `headrace replay run --state {path}`.", err=True)
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
    click.echo(f"Compare the results with `headrace replay diff --state {path}`.")


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
