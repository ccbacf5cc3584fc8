"""`headrace dead-letters`: records that could not be processed, over HTTP."""

from __future__ import annotations

import click

from headrace.client import AdminClient, path_segment
from headrace.commands.batches import api_options
from headrace.options import reported
from headrace.output import Column, Output, json_output, output_option, show, show_members, show_table

COLUMNS = (
    Column("id", "id"),
    Column("topic", "topic", 2),
    Column("partition", "partition", 5),
    Column("offset", "offset", 4),
    Column("created", "buried_at", 1),
    Column("redriven", "redriven_at", 3),
    Column("field", "field", 6),
    Column("reason", "reason", 1, text=True),
)
reason_option = click.option("--reason", metavar="TEXT", help="Only dead letters whose reason contains this.")
topic_option = click.option("--topic", metavar="TOPIC", help="Only dead letters from this topic.")


@click.group(name="dead-letters")
def dead_letters() -> None:
    """List, show, redrive and purge records that could not be processed.

    A dead letter contains the original record and the reason. It is retained for 30 days.
    """


@dead_letters.command(name="list")
@reason_option
@topic_option
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Maximum number of dead letters."
)
@output_option
@api_options
def list_(reason: str | None, topic: str | None, limit: int, url: str, api_key: str, output: Output) -> None:
    """List dead letters, newest first."""
    with reported(), AdminClient(url, api_key) as api:
        found = list(api.pages("dead-letters", most=limit, reason=reason, topic=topic))
    show_table(found, COLUMNS, output=output, nothing="No dead letters found.")


@dead_letters.command(name="show")
@click.argument("dead_id", metavar="ID")
@json_output
@api_options
def show_(dead_id: str, url: str, api_key: str, as_json: bool) -> None:
    """Show a dead letter with its headers and its value."""
    with reported(), AdminClient(url, api_key) as api:
        show_members(api.get(f"dead-letters/{path_segment(dead_id)}"), as_json=as_json)


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@reason_option
@topic_option
@click.option("--all", "everything", is_flag=True, help="All that were not redriven yet.")
@click.option("--again", is_flag=True, help="Also those that were redriven before.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Maximum number of dead letters."
)
@click.option("--dry-run", is_flag=True, help="Only print how many there are.")
@json_output
@api_options
def redrive(
    ids: tuple[str, ...],
    reason: str | None,
    topic: str | None,
    everything: bool,
    again: bool,
    limit: int,
    dry_run: bool,
    url: str,
    api_key: str,
    as_json: bool,
) -> None:
    """Write original records back to their topic and partition: by ids, or by --reason and --topic."""
    if not (ids or reason or topic or everything):
        raise click.UsageError("give ids, --reason, --topic or --all")
    body = {
        "ids": list(ids) or None,
        "reason": reason,
        "topic": topic,
        "again": again,
        "dry_run": dry_run,
        "limit": limit,
    }
    with reported(), AdminClient(url, api_key) as api:
        result = api.post("dead-letters/redrive", body)
    count = len(result["chosen"]) if dry_run else result["redriven"]
    lines = [f"{count} dead letters {'would be' if dry_run else 'are'} redriven."]
    lines += [f"{dead_id} is skipped: {why}" for dead_id, why in result["skipped"].items()]
    show(result, as_json=as_json, sentence="\n".join(lines))


@dead_letters.command()
@click.option("--before", metavar="TIME", help="Those created before then.")
@click.option("--up-to", metavar="ID", help="Those of this dead letter's partition, up to and including it.")
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_output
@api_options
def purge(
    before: str | None, up_to: str | None, everything: bool, yes: bool, url: str, api_key: str, as_json: bool
) -> None:
    """Delete dead letters permanently."""
    body: dict[str, object] = {"before": before, "all": everything or None}
    if up_to is not None:
        partition, _, offset = up_to.partition("-")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise click.UsageError("--up-to takes an id as `headrace dead-letters list` prints it, such as 2-17")
        body |= {"partition": int(partition), "offset": int(offset) + 1}
    if not yes:
        click.confirm("Delete these dead letters permanently?", abort=True, err=True)
    with reported(), AdminClient(url, api_key) as api:
        result = api.post("dead-letters/purge", body)
    show(result, as_json=as_json, sentence=f"{result['deleted']} records are deleted.")
