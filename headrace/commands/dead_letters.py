"""`headrace dead-letters`: what nobody could work with, over HTTP."""

from __future__ import annotations

import click

from headrace.client import Api, json_option, named, show, show_members, show_table
from headrace.commands.batches import api_options
from headrace.options import reported

COLUMNS = {
    "letter": "id", "reason": "reason", "field": "field", "topic": "topic", "partition": "partition",
    "offset": "offset", "buried": "buried_at", "sent back": "redriven_at",
}  # fmt: skip
reason_option = click.option("--reason", metavar="TEXT", help="Only letters whose reason holds this.")
topic_option = click.option("--topic", metavar="TOPIC", help="Only letters from this topic.")


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Look at records that nobody could work with, send them back, or delete them.

    A letter keeps its record as it came, with the reason, for 30 days.
    """


@dead_letters.command(name="list")
@reason_option
@topic_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most letters.")
@json_option
@api_options
def list_(reason: str | None, topic: str | None, limit: int, url: str, api_key: str, as_json: bool) -> None:
    """List dead letters, the newest first."""
    with reported(), Api(url, api_key) as api:
        found = list(api.pages("dead-letters", most=limit, reason=reason, topic=topic))
    show_table(found, COLUMNS, as_json=as_json, nothing="There is no such dead letter.")


@dead_letters.command(name="show")
@click.argument("letter")
@json_option
@api_options
def show_(letter: str, url: str, api_key: str, as_json: bool) -> None:
    """Show a dead letter with its headers and its value."""
    with reported(), Api(url, api_key) as api:
        show_members(api.get(f"dead-letters/{named(letter)}"), as_json=as_json)


@dead_letters.command()
@click.argument("letters", nargs=-1)
@reason_option
@topic_option
@click.option("--all", "everything", is_flag=True, help="All that were not sent back yet.")
@click.option("--again", is_flag=True, help="Also those that were sent back before.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Most letters.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@json_option
@api_options
def redrive(
    letters: tuple[str, ...], reason: str | None, topic: str | None, everything: bool, again: bool, limit: int,
    dry_run: bool, url: str, api_key: str, as_json: bool,
) -> None:  # fmt: skip
    """Write original records back to their topic and partition: LETTERS, or those that --reason and --topic choose."""
    if not (letters or reason or topic or everything):
        raise click.UsageError("name letters, --reason, --topic or --all")
    body = {
        "ids": list(letters) or None, "reason": reason, "topic": topic, "again": again, "dry_run": dry_run,
        "limit": limit,
    }  # fmt: skip
    with reported(), Api(url, api_key) as api:
        told = api.post("dead-letters/redrive", body)
    count = len(told["chosen"]) if dry_run else told["redriven"]
    lines = [f"{count} dead letters {'would be' if dry_run else 'are'} sent back."]
    lines += [f"{letter} is not: {why}" for letter, why in told["skipped"].items()]
    show(told, as_json=as_json, sentence="\n".join(lines))


@dead_letters.command()
@click.option("--before", metavar="TIME", help="Those buried before then.")
@click.option("--up-to", metavar="LETTER", help="Those of this letter's partition, up to and with it.")
@click.option("--all", "everything", is_flag=True, help="All there are now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@api_options
def purge(
    before: str | None, up_to: str | None, everything: bool, yes: bool, url: str, api_key: str, as_json: bool
) -> None:
    """Delete dead letters for good."""
    body: dict[str, object] = {"before": before, "all": everything or None}
    if up_to is not None:
        partition, _, offset = up_to.partition("-")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise click.UsageError("--up-to takes a letter as the list shows it, such as 2-17")
        body |= {"partition": int(partition), "offset": int(offset) + 1}
    if not yes:
        click.confirm("Delete these dead letters for good?", abort=True, err=True)
    with reported(), Api(url, api_key) as api:
        told = api.post("dead-letters/purge", body)
    show(told, as_json=as_json, sentence=f"{told['deleted']} records are deleted.")
