"""`headrace tasks`: the tasks of all tenants, over HTTP."""

from __future__ import annotations

import click

from headrace.client import AdminClient, path_segment
from headrace.commands.batches import api_options
from headrace.options import reported
from headrace.output import Column, Output, json_output, output_option, show, show_members, show_table

COLUMNS = (
    Column("task", "task_id"),
    Column("status", "status"),
    Column("queue", "queue", 2),
    Column("level", "level", 5),
    Column("model", "model_code", 4),
    Column("owner", "owner", 6),
    Column("created", "created_at", 1),
    Column("error", "error_code", 3),
)
STATES = "queued, processing, completed, failed, cancelled, expired"


@click.group()
def tasks() -> None:
    """List, show, cancel and requeue tasks of all tenants."""


@tasks.command(name="list")
@click.option("--status", metavar="STATES", help=f"Only these, separated by commas: {STATES}.")
@click.option("--queue", metavar="NAME", help="Only this queue.")
@click.option("--level", type=click.Choice(["online", "offline"]), help="Only this level.")
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option("--owner", metavar="TENANT", help="Only this tenant.")
@click.option("--since", metavar="TIME", help="Only tasks created then or later, such as 2026-01-31T12:00:00Z.")
@click.option("--before", metavar="TIME", help="Only tasks created before then.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Maximum number of tasks.")
@output_option
@api_options
def list_(
    status: str | None,
    queue: str | None,
    level: str | None,
    model: str | None,
    owner: str | None,
    since: str | None,
    before: str | None,
    limit: int,
    url: str,
    api_key: str,
    output: Output,
) -> None:
    """List tasks, newest first."""
    with reported(), AdminClient(url, api_key) as api:
        found = list(
            api.pages(
                "tasks",
                most=limit,
                status=status,
                queue=queue,
                level=level,
                model=model,
                owner=owner,
                created_after=since,
                created_before=before,
            )
        )
    show_table(found, COLUMNS, output=output, nothing="No tasks found.")


@tasks.command(name="show")
@click.argument("task_id")
@json_output
@api_options
def show_(task_id: str, url: str, api_key: str, as_json: bool) -> None:
    """Show a task without its request and response; the id may have any form."""
    with reported(), AdminClient(url, api_key) as api:
        show_members(api.get(f"tasks/{path_segment(task_id)}"), as_json=as_json)


@tasks.command()
@click.argument("task_id")
@json_output
@api_options
def cancel(task_id: str, url: str, api_key: str, as_json: bool) -> None:
    """Cancel a task."""
    with reported(), AdminClient(url, api_key) as api:
        changed = api.post(f"tasks/{path_segment(task_id)}/cancel", {})
    show(changed, as_json=as_json, sentence=f"{changed['task_id']} is {changed['status']}.")


@tasks.command()
@click.argument("task_id")
@click.option("--wait", type=click.IntRange(0, 60), default=0, help="Seconds to wait for the new task to finish.")
@click.option(
    "--callback", is_flag=True, help="Also send the webhook that the task requested; without it none is sent."
)
@json_output
@api_options
def requeue(task_id: str, wait: int, callback: bool, url: str, api_key: str, as_json: bool) -> None:
    """Run a finished task again, as a new task of its tenant."""
    with reported(), AdminClient(url, api_key) as api:
        changed = api.post(f"tasks/{path_segment(task_id)}/requeue", {"wait_s": wait, "callback": callback})
    show(
        changed, as_json=as_json, sentence=f"{changed['task_id']} repeats {changed['replay_of']}: {changed['status']}."
    )
