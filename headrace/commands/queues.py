"""`headrace queues`: list, register, pause, configure and purge queues, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from headrace.client import AdminClient, path_segment
from headrace.commands.batches import api_options
from headrace.options import reported
from headrace.output import Column, Output, json_output, output_option, show, show_members, show_table

F = TypeVar("F", bound=Callable[..., Any])
MAX_QUEUES = 10_000
COLUMNS = (
    Column("queue", "name"),
    Column("paused", "paused", 1),
    Column("online", "waiting.online", 1),
    Column("offline", "waiting.offline", 1),
    Column("max-depth", "max_waiting", 2),
    Column("served-by", "served_by", 2),
    Column("concurrency", "concurrency", 3),
    Column("owner", "owner", 4),
    Column("width", "width", 5),
    Column("retention-s", "result_retention_s", 6),
    Column("endpoint", "endpoint", 7),
)


def settings_options(command: F) -> F:
    """Add the options that set a queue's limits."""
    for option in (
        click.option(
            "--retention", type=click.IntRange(0), metavar="SECONDS", help="Retention of results; 0: the default."
        ),
        click.option(
            "--concurrency", type=click.IntRange(0), help="Maximum concurrent calls per dispatcher; 0: no limit."
        ),
        click.option(
            "--max-depth",
            "--max-waiting",
            "max_waiting",
            type=click.IntRange(0),
            help="Maximum queued tasks per level; 0: no limit.",
        ),
        click.option(
            "--width",
            type=click.IntRange(0),
            help="Partitions its tasks are spread over; 0: all. Can only be increased.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def queues() -> None:
    """List, pause, resume, configure and purge queues.

    A paused queue still accepts tasks; they stay queued, running calls finish, and no new calls start.
    """


@queues.command(name="list")
@output_option
@api_options
def list_(url: str, api_key: str, output: Output) -> None:
    """List queues with the number of queued tasks."""
    with reported(), AdminClient(url, api_key) as api:
        found = list(api.pages("queues", most=MAX_QUEUES))
    show_table(found, COLUMNS, output=output, nothing="No queues found.")


@queues.command(name="show")
@click.argument("name")
@json_output
@api_options
def show_(name: str, url: str, api_key: str, as_json: bool) -> None:
    """Show the settings of a queue, its queued tasks and its limits."""
    with reported(), AdminClient(url, api_key) as api:
        show_members(api.get(f"queues/{path_segment(name)}"), as_json=as_json)


@queues.command()
@click.argument("name")
@click.option("--endpoint", metavar="PATH", help="Endpoint of its tasks, such as /v1/chat/completions.")
@click.option("--served-by", type=click.Choice(["dispatcher", "workers"]), help="What runs its tasks.  [dispatcher]")
@click.option("--paused", is_flag=True, help="Register it paused.")
@settings_options
@json_output
@api_options
def register(
    name: str,
    endpoint: str | None,
    served_by: str | None,
    paused: bool,
    width: int | None,
    concurrency: int | None,
    retention: int | None,
    max_waiting: int | None,
    url: str,
    api_key: str,
    as_json: bool,
) -> None:
    """Register a queue with settings. Otherwise its first task registers it with the defaults."""
    body = {
        "name": name,
        "endpoint": endpoint,
        "served_by": served_by,
        "paused": paused or None,
        "width": width,
        "concurrency": concurrency,
        "result_retention_s": retention,
        "max_waiting": max_waiting,
    }
    with reported(), AdminClient(url, api_key) as api:
        show(api.post("queues", body), as_json=as_json, sentence=f"Queue {name} is registered.")


@queues.command()
@click.argument("name")
@json_output
@api_options
def pause(name: str, url: str, api_key: str, as_json: bool) -> None:
    """Pause a queue: its tasks stay queued, and running calls finish."""
    _change(name, {"paused": True}, url, api_key, as_json, f"Queue {name} is paused.")


@queues.command()
@click.argument("name")
@json_output
@api_options
def resume(name: str, url: str, api_key: str, as_json: bool) -> None:
    """Resume a paused queue."""
    _change(name, {"paused": False}, url, api_key, as_json, f"Queue {name} is resumed.")


@queues.command(name="set")
@click.argument("name")
@settings_options
@json_output
@api_options
def set_(
    name: str,
    width: int | None,
    concurrency: int | None,
    retention: int | None,
    max_waiting: int | None,
    url: str,
    api_key: str,
    as_json: bool,
) -> None:
    """Set the limits of a queue; options that are not given stay unchanged."""
    settings = {
        "width": width,
        "concurrency": concurrency,
        "result_retention_s": retention,
        "max_waiting": max_waiting,
    }
    if not any(value is not None for value in settings.values()):
        raise click.UsageError("name at least one of --width, --concurrency, --retention and --max-depth")
    _change(name, settings, url, api_key, as_json, f"Queue {name} is updated.")


@queues.command()
@click.argument("name")
@click.option("--level", type=click.Choice(["online", "offline"]), help="Only this level.")
@click.option(
    "--wait", type=click.IntRange(0, 60), default=30, show_default=True, help="Seconds to wait for the purge to finish."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_output
@api_options
def purge(name: str, level: str | None, wait: int, yes: bool, url: str, api_key: str, as_json: bool) -> None:
    """Cancel all queued tasks of a queue; running tasks are not affected."""
    if not yes:
        click.confirm(f"Cancel all queued tasks of {name}?", abort=True, err=True)
    with reported(), AdminClient(url, api_key) as api:
        purged = api.post(f"queues/{path_segment(name)}/purge", {"level": level, "wait_s": wait})
    rest = "" if purged["done"] else f" {purged['left']} are left; the purge continues in the background."
    show(purged, as_json=as_json, sentence=f"{purged['purged']} queued tasks of {name} are cancelled.{rest}")


def _change(name: str, body: dict[str, Any], url: str, api_key: str, as_json: bool, sentence: str) -> None:
    with reported(), AdminClient(url, api_key) as api:
        show(api.patch(f"queues/{path_segment(name)}", body), as_json=as_json, sentence=sentence)
