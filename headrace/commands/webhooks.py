"""`headrace webhooks`: list webhook deliveries and resend them, read from Kafka directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click
from aiokafka import TopicPartition

from core import deliveries
from core.clock import epoch_ms
from core.errors import NotFound, Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.settings.models import Settings
from headrace.options import config_option, reported, settings_here
from headrace.output import Column, Output, output_option, show_table
from schemas import ids, topics
from schemas.codec import DELIVERY, SchemaError
from schemas.framing import FramingError
from schemas.records import Delivery

STATES = ("pending", "delivered", "failed", "disabled")
DEAD = ("failed", "disabled")
UNBOUNDED_MS = 0
COLUMNS = (
    Column("task", "task_id"),
    Column("event", "event", 1),
    Column("state", "state"),
    Column("attempts", "made", 4),
    Column("next", "next", 5),
    Column("last", "last", 3, text=True),
    Column("url", "url", 2),
)

host_option = click.option("--host", metavar="HOST", help="Only deliveries to this host, HOST or HOST:PORT.")


@click.group()
def webhooks() -> None:
    """List webhook deliveries and resend them.

    A delivery that failed for good is also a dead letter. A resend needs the task's result, which is retained for seven
    days.
    """


@webhooks.command(name="list")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only these; may be repeated.")
@host_option
@output_option
@config_option
def list_(state: tuple[str, ...], host: str | None, output: Output, config: Path | None) -> None:
    """List deliveries with their last attempt, and when the next one is due."""
    with reported():
        settings = settings_here(config)
        found = asyncio.run(_read(settings, lambda one: _fits(one, state or STATES, host)))
    if output == "json":
        click.echo(json.dumps([_plain(one) for one in found], indent=2))
        return
    rows = [
        {**one, "last": one["attempts"][-1]["reason"] if one["attempts"] else "", "next": _moment(one["due_ms"])}
        for one in found
    ]
    show_table(rows, COLUMNS, output=output, nothing="No deliveries found.")


@webhooks.command()
@click.argument("task_id", metavar="ID")
@click.option("--event", metavar="EVENT", help="The event to send again; without it that of the outcome.")
@config_option
def resend(task_id: str, event: str | None, config: Path | None) -> None:
    """Resend the webhook of a task or a batch now, with all its attempts."""
    with reported():
        settings = settings_here(config)
        wanted = (event,) if event else (*deliveries.OUTCOMES, *deliveries.BATCH_OUTCOMES)
        try:
            home = ids.partition_of(task_id)
            key = ids.canonical(task_id)
        except ids.IdError:
            raise NotFound(f"{task_id} is not the id of a task or a batch") from None
        found = asyncio.run(_send(settings, lambda one: one["task_id"] == key and one["event"] in wanted, only=home))
        if not found:
            raise NotFound(f"there is no delivery of {task_id}; it may be older than eight days")
    click.echo(f"{found[0]['id']} is resent.")


@webhooks.command()
@host_option
@click.option("--owner", metavar="TENANT", help="Only deliveries of this tenant.")
@click.option("--dry-run", is_flag=True, help="Only print how many there are.")
@config_option
def redrive(host: str | None, owner: str | None, dry_run: bool, config: Path | None) -> None:
    """Resend all deliveries that failed for good and were not delivered since."""

    def chosen(one: Delivery) -> bool:
        # Progress is tried once, and outdated soon after.
        return _fits(one, DEAD, host) and owner in (None, one["owner"]) and one["event"] != "progress"

    with reported():
        settings = settings_here(config)
        found = asyncio.run(_read(settings, chosen) if dry_run else _send(settings, chosen))
    click.echo(f"{len(found)} deliveries {'would be' if dry_run else 'are'} resent.")


def _fits(one: Delivery, states: Sequence[str], host: str | None) -> bool:
    parts = urlsplit(one["url"])
    return one["state"] in states and host in (None, parts.hostname, parts.netloc)


async def _read(settings: Settings, chosen: Callable[[Delivery], bool], only: int | None = None) -> list[Delivery]:
    """Return the current state of the selected deliveries, oldest first; `only` names one partition."""
    topic = settings.topic(topics.DELIVERIES)
    async with _lookup(settings, topic) as lookup:
        newest: dict[bytes, Delivery] = {}
        for number in range(settings.kafka.partitions) if only is None else (only,):
            async for record in lookup.scan(TopicPartition(topic, number), from_ms=UNBOUNDED_MS):
                if record.key is None or record.value is None:
                    continue
                try:
                    one = DELIVERY.decode(record.value)
                except (FramingError, SchemaError):
                    continue  # an invalid record must not hide all others
                newest.pop(record.key, None)
                if chosen(one):
                    newest[record.key] = one
    return sorted(newest.values(), key=lambda one: one["created_ms"])


async def _send(settings: Settings, chosen: Callable[[Delivery], bool], only: int | None = None) -> list[Delivery]:
    found = await _read(settings, chosen, only)
    producer = Producer(settings, name="headrace-webhooks")
    await producer.start()
    try:
        for one in found:
            now_ms = epoch_ms()
            round_ = deliveries.resent(one, now_ms=now_ms)
            # The state record first: the sender's records about this resend must come after it.
            await producer.send(*deliveries.row(settings, round_, now_ms=now_ms))
            await producer.send(*deliveries.retry_record(settings, round_, delay_s=0, now_ms=now_ms))
    finally:
        await producer.stop()
    return found


@asynccontextmanager
async def _lookup(settings: Settings, topic: str) -> AsyncIterator[LogReader]:
    lookup = LogReader(settings, name="headrace-webhooks")
    try:
        try:
            await lookup.open([topic])
        except Unavailable:
            raise Unavailable(
                f"Kafka does not answer at {settings.kafka.bootstrap}, which is kafka.bootstrap or the stack that"
                f" runs in {settings.data_dir}; HEADRACE_KAFKA_BOOTSTRAP names another"
            ) from None
        yield lookup
    finally:
        await lookup.close()


def _plain(one: Delivery) -> dict[str, object]:
    return {name: value for name, value in one.items() if name != "payload"}


def _moment(ms: int | None) -> str:
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
