"""`headrace workers`: the processes that run tasks, over HTTP.

Apart, because every command has a module of its own.
"""

from __future__ import annotations

import json

import click

from headrace.client import AdminClient
from headrace.commands.batches import api_options
from headrace.options import reported
from headrace.output import Column, Output, output_option, show_table

DISPATCHERS = (
    Column("dispatcher", "name"),
    Column("running", "running", 1),
    Column("upstreams-up", "upstreams_up", 2),
    Column("last-heartbeat", "last_heartbeat_at", 1),
    Column("partitions", "partitions", 3),
)
SCHEDULERS = (
    Column("scheduler", "name"),
    Column("level", "level", 1),
    Column("last-heartbeat", "last_heard_at", 2),
    Column("partitions", "partitions", 3),
)
OTHERS = (Column("other-consumer", "name"), Column("queues", "queues", 1))
PULLERS = (
    Column("pull-worker", "name"),
    Column("queue", "queue", 1),
    Column("level", "level", 3),
    Column("running", "running", 1),
    Column("next-lease-end", "next_lease_ends_at", 2),
)


@click.group()
def workers() -> None:
    """List the processes that run tasks."""


@workers.command(name="list")
@output_option
@api_options
def list_(url: str, api_key: str, output: Output) -> None:
    """List dispatchers, schedulers and pull workers."""
    with reported(), AdminClient(url, api_key) as api:
        found = api.get("workers")
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    show_table(found["dispatchers"], DISPATCHERS, output=output, nothing="No dispatcher heartbeat in the last 10 s.")
    click.echo()
    show_table(found["schedulers"], SCHEDULERS, output=output, nothing="No scheduler heartbeat in the last 10 s.")
    for name, columns in (("other_consumers", OTHERS), ("pull_workers", PULLERS)):
        if found[name]:
            click.echo()
            show_table(found[name], columns, output=output, nothing="")
