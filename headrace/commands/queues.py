"""`headrace queues`: list, register, pause, set and purge queues, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from headrace.client import Api, json_option, named, show, show_members, show_table
from headrace.commands.batches import api_options
from headrace.options import reported

F = TypeVar("F", bound=Callable[..., Any])
MOST = 10_000
COLUMNS = {
    "queue": "name", "served by": "served_by", "paused": "paused", "online": "waiting.online",
    "offline": "waiting.offline", "at most": "max_waiting",
    "width": "width", "concurrency": "concurrency", "retention s": "result_retention_s",
    "endpoint": "endpoint", "owner": "owner",
}  # fmt: skip


def settings_options(command: F) -> F:
    """Add the settings of a queue."""
    for option in (
        click.option(
            "--retention", type=click.IntRange(0), metavar="SECONDS", help="How long results are kept; 0: as usual."
        ),
        click.option("--concurrency", type=click.IntRange(0), help="Most calls at once per dispatcher; 0: no limit."),
        click.option("--max-waiting", type=click.IntRange(0), help="Most tasks of a level that may wait; 0: no limit."),
        click.option("--width", type=click.IntRange(0), help="Partitions its tasks spread over; 0: all. Only grows."),
    ):
        command = option(command)
    return command


@click.group()
def queues() -> None:
    """Look at queues, pause and resume them, set their limits, and purge what waits.

    A queue that is paused still accepts tasks; they stay queued, running calls finish, and nothing more is handed out.
    """


@queues.command(name="list")
@json_option
@api_options
def list_(url: str, api_key: str, as_json: bool) -> None:
    """List queues with what waits for a dispatcher in each."""
    with reported(), Api(url, api_key) as api:
        found = list(api.pages("queues", most=MOST))
    show_table(found, COLUMNS, as_json=as_json, nothing="No queue is registered; the first task registers its own.")


@queues.command(name="show")
@click.argument("name")
@json_option
@api_options
def show_(name: str, url: str, api_key: str, as_json: bool) -> None:
    """Show a queue: its settings, what waits in it, and how much may."""
    with reported(), Api(url, api_key) as api:
        show_members(api.get(f"queues/{named(name)}"), as_json=as_json)


@queues.command()
@click.argument("name")
@click.option("--endpoint", metavar="PATH", help="What its tasks call, such as /v1/chat/completions.")
@click.option("--served-by", type=click.Choice(["dispatcher", "workers"]), help="Who runs its tasks.  [dispatcher]")
@click.option("--paused", is_flag=True, help="Begin paused.")
@settings_options
@json_option
@api_options
def register(
    name: str, endpoint: str | None, served_by: str | None, paused: bool, width: int | None, concurrency: int | None,
    retention: int | None, max_waiting: int | None, url: str, api_key: str, as_json: bool,
) -> None:  # fmt: skip
    """Register a queue with settings; without this its first task does, with none."""
    body = {
        "name": name, "endpoint": endpoint, "served_by": served_by, "paused": paused or None, "width": width,
        "concurrency": concurrency, "result_retention_s": retention, "max_waiting": max_waiting,
    }  # fmt: skip
    with reported(), Api(url, api_key) as api:
        show(api.post("queues", body), as_json=as_json, sentence=f"Queue {name} is registered.")


@queues.command()
@click.argument("name")
@json_option
@api_options
def pause(name: str, url: str, api_key: str, as_json: bool) -> None:
    """Hand out nothing more of a queue; its tasks stay queued and running calls finish."""
    _change(name, {"paused": True}, url, api_key, as_json, f"Queue {name} is paused.")


@queues.command()
@click.argument("name")
@json_option
@api_options
def resume(name: str, url: str, api_key: str, as_json: bool) -> None:
    """Go on with a paused queue."""
    _change(name, {"paused": False}, url, api_key, as_json, f"Queue {name} goes on.")


@queues.command(name="set")
@click.argument("name")
@settings_options
@json_option
@api_options
def set_(
    name: str, width: int | None, concurrency: int | None, retention: int | None, max_waiting: int | None, url: str,
    api_key: str, as_json: bool,
) -> None:  # fmt: skip
    """Set the limits of a queue; those that are not named stay."""
    settings = {
        "width": width, "concurrency": concurrency, "result_retention_s": retention, "max_waiting": max_waiting,
    }  # fmt: skip
    if not any(value is not None for value in settings.values()):
        raise click.UsageError("name at least one of --width, --concurrency, --retention and --max-waiting")
    _change(name, settings, url, api_key, as_json, f"Queue {name} is set.")


@queues.command()
@click.argument("name")
@click.option("--level", type=click.Choice(["online", "offline"]), help="Only this level.")
@click.option("--wait", type=click.IntRange(0, 60), default=30, show_default=True, help="Seconds to wait for the end.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@api_options
def purge(name: str, level: str | None, wait: int, yes: bool, url: str, api_key: str, as_json: bool) -> None:
    """Cancel every task that waits in a queue now; what runs goes on."""
    if not yes:
        click.confirm(f"Cancel everything that waits in {name}?", abort=True, err=True)
    with reported(), Api(url, api_key) as api:
        told = api.post(f"queues/{named(name)}/purge", {"level": level, "wait_s": wait})
    rest = "" if told["done"] else f" {told['left']} are left; it goes on by itself."
    show(told, as_json=as_json, sentence=f"{told['purged']} waiting tasks of {name} are cancelled.{rest}")


def _change(name: str, body: dict[str, Any], url: str, api_key: str, as_json: bool, sentence: str) -> None:
    with reported(), Api(url, api_key) as api:
        show(api.patch(f"queues/{named(name)}", body), as_json=as_json, sentence=sentence)
