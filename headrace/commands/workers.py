"""`headrace workers`: who works on what, over HTTP."""

from __future__ import annotations

import json

import click

from headrace.client import Api, json_option, show_table
from headrace.commands.batches import api_options
from headrace.options import reported

DISPATCHERS = {
    "dispatcher": "name", "running": "running", "upstreams up": "upstreams_up", "last heartbeat": "last_heartbeat_at",
    "partitions": "partitions",
}  # fmt: skip
SCHEDULERS = {"scheduler": "name", "level": "level", "partitions": "partitions", "last heard": "last_heard_at"}
OTHERS = {"other consumer": "name", "queues": "queues"}
PULLERS = {
    "pull workers": "name", "queue": "queue", "level": "level", "running": "running",
    "next lease ends": "next_lease_ends_at",
}  # fmt: skip


@click.group()
def workers() -> None:
    """Look at the processes that do the work."""


@workers.command(name="list")
@json_option
@api_options
def list_(url: str, api_key: str, as_json: bool) -> None:
    """List dispatchers, schedulers, and what workers hold that fetch tasks over HTTP."""
    with reported(), Api(url, api_key) as api:
        told = api.get("workers")
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    show_table(told["dispatchers"], DISPATCHERS, as_json=False, nothing="No dispatcher was heard within 10 s.")
    show_table(told["schedulers"], SCHEDULERS, as_json=False, nothing="No scheduler was heard within 10 s.")
    for name, columns in (
        ("other_consumers", {"other consumer": "name", "queues": "queues"}),
        ("pull_workers", PULLERS),
    ):
        if told[name]:
            show_table(told[name], columns, as_json=False, nothing="")
