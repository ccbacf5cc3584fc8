"""`headrace tasks`: everybody's tasks, over HTTP."""

from __future__ import annotations

import click

from headrace.client import Api, json_option, named, show, show_members, show_table
from headrace.commands.batches import api_options
from headrace.options import reported

COLUMNS = {
    "task": "task_id", "status": "status", "queue": "queue", "level": "level", "model": "model_code", "owner": "owner",
    "created": "created_at", "error": "error_code",
}  # fmt: skip
STATES = "queued, processing, completed, failed, cancelled, expired"


@click.group()
def tasks() -> None:
    """Look at tasks of all tenants, cancel them, and run them again."""


@tasks.command(name="list")
@click.option("--status", metavar="STATES", help=f"Only these, separated by commas: {STATES}.")
@click.option("--queue", metavar="NAME", help="Only this queue.")
@click.option("--level", type=click.Choice(["online", "offline"]), help="Only this level.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--owner", metavar="TENANT", help="Only this tenant.")
@click.option("--since", metavar="TIME", help="Only tasks created then or later, such as 2026-01-31T12:00:00Z.")
@click.option("--before", metavar="TIME", help="Only tasks created before then.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most tasks.")
@json_option
@api_options
def list_(
    status: str | None, queue: str | None, level: str | None, model: str | None, owner: str | None, since: str | None,
    before: str | None, limit: int, url: str, api_key: str, as_json: bool,
) -> None:  # fmt: skip
    """List tasks, newest first."""
    with reported(), Api(url, api_key) as api:
        found = list(
            api.pages(
                "tasks", most=limit, status=status, queue=queue, level=level, model=model, owner=owner,
                created_after=since, created_before=before,
            )
        )  # fmt: skip
    show_table(found, COLUMNS, as_json=as_json, nothing="There is no such task.")


@tasks.command(name="show")
@click.argument("task_id")
@json_option
@api_options
def show_(task_id: str, url: str, api_key: str, as_json: bool) -> None:
    """Show all that is known of a task but its bodies; the id may have any form."""
    with reported(), Api(url, api_key) as api:
        show_members(api.get(f"tasks/{named(task_id)}"), as_json=as_json)


@tasks.command()
@click.argument("task_id")
@json_option
@api_options
def cancel(task_id: str, url: str, api_key: str, as_json: bool) -> None:
    """Cancel a task."""
    with reported(), Api(url, api_key) as api:
        told = api.post(f"tasks/{named(task_id)}/cancel", {})
    show(told, as_json=as_json, sentence=f"{told['task_id']} is {told['status']}.")


@tasks.command()
@click.argument("task_id")
@click.option("--wait", type=click.IntRange(0, 60), default=0, help="Seconds to wait for the end of the new task.")
@click.option("--callback", is_flag=True, help="Send the callback that the task asked for; else none is sent.")
@json_option
@api_options
def requeue(task_id: str, wait: int, callback: bool, url: str, api_key: str, as_json: bool) -> None:
    """Run a task that has ended again, as a new task of its owner."""
    with reported(), Api(url, api_key) as api:
        told = api.post(f"tasks/{named(task_id)}/requeue", {"wait_s": wait, "callback": callback})
    show(told, as_json=as_json, sentence=f"{told['task_id']} runs {told['replay_of']} again: {told['status']}.")
