"""`headrace topics`: create the declared topics, and compare them with the topics of the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click

from core.asyncapi import document
from core.kafka.admin import Change, apply_topics, declared_topics, diff_topics
from core.kafka.partition_counts import differing, warnings, wrong_setting
from core.kafka.work_topics import apply_work_topics, diff_work_topics
from core.schema_registry.register import lacking_schemas, register_schemas
from core.settings.models import Settings
from headrace.options import config_option, load_here, reported, settings_here
from headrace.output import Column, Output, output_option, show_table

COLUMNS = (Column("topic", "topic"), Column("what", "what"), Column("is", "was"), Column("declared", "wanted"))


@click.group()
def topics() -> None:
    """Create and check the Kafka topics.

    Headrace does not rely on the broker's automatic topic creation; the roles wait until the declared topics exist.
    `headrace up` applies them; on a cluster run `headrace topics apply` once per release, with an account that may
    create topics and change their settings.
    """


@topics.command()
@config_option
@output_option
def apply(config: Path | None, output: Output) -> None:
    """Create missing topics and set differing topic settings.

    Idempotent: a second run changes nothing. Missing work topics of registered queues are created again, and a topic
    with too few partitions gets the others, unless kafka.partitions was changed: the partition of every task depends on
    it, and it is fixed for the life of a cluster. Partitions are never removed; such a difference stays visible in
    `headrace topics diff`.

    With kafka.registry_url the schemas are also registered in that schema registry, under the ids that records carry.
    """
    with reported():
        settings = settings_here(config)
        changes = asyncio.run(_apply(settings))
        _show(changes, output=output, nothing="All topics are as declared.")
        _advise(settings, changes, applied=True)


@topics.command()
@config_option
@output_option
def diff(config: Path | None, output: Output) -> None:
    """Compare the broker's topics with the declared ones; exit code 1 when something differs.

    For deployment checks. With kafka.registry_url it also lists the schemas that are missing in that registry.
    """
    with reported():
        settings = settings_here(config)
        changes = asyncio.run(_diff(settings))
        _show(changes, output=output, nothing="No differences.")
        _advise(settings, changes, applied=False)
    if changes:
        raise SystemExit(1)


@topics.command()
@config_option
def asyncapi(config: Path | None) -> None:
    """Print the AsyncAPI document: every topic with its records.

    For code generators and catalogs. The ingress serves the same at /asyncapi.json, without the broker's address.
    """
    with reported():
        settings = load_here(config)
        click.echo(json.dumps(document(settings, bootstrap=settings.kafka.bootstrap), indent=2))


async def _apply(settings: Settings) -> list[Change]:
    return [
        *await apply_topics(settings),
        *await apply_work_topics(settings),
        *await register_schemas(settings, say=_progress),
    ]


async def _diff(settings: Settings) -> list[Change]:
    return [*await diff_topics(settings), *await diff_work_topics(settings), *await lacking_schemas(settings)]


def _advise(settings: Settings, changes: Sequence[Change], *, applied: bool) -> None:
    """Print what differing partition counts mean, without those that were just corrected."""
    wanted = declared_topics(settings)
    differ = {one.topic: int(one.was) for one in changes if one.what == "partitions" and one.topic in wanted}
    there = {name: topic.partitions for name, topic in wanted.items()} | differ
    if wrong := wrong_setting(wanted, there, partitions=settings.kafka.partitions):
        _progress(wrong)
        return
    for sentence in warnings(one for one in differing(wanted, there) if not (applied and one.short)):
        _progress(sentence)


def _progress(text: str) -> None:
    click.echo(text, err=True)  # standard output is for the table or the JSON


def _show(changes: Sequence[Change], *, output: Output, nothing: str) -> None:
    show_table([change._asdict() for change in changes], COLUMNS, output=output, nothing=nothing)
