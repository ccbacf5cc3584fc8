"""The records that a worker writes to the events topics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from core.kafka.producer import Record
from core.settings.models import Settings
from schemas import topics
from schemas.codec import EVENT
from schemas.events import event
from schemas.headers import headers
from schemas.records import Event, EventKind, Work


class Address(NamedTuple):
    """Where a record goes."""

    topic: str
    partition: int


class Addressed(NamedTuple):
    """A record with where it goes."""

    address: Address
    record: Record


def about_task(
    settings: Settings, work: Work, happened: Event, *, home: int, traceparent: bytes | None = None
) -> Addressed:
    """Address an event to the home partition of its task."""
    often = f"/{happened['progress']}" if happened["kind"] == "progress" else ""
    described = headers(
        kind=happened["kind"],
        ce_id=f"{work['id']}/{happened['attempt']}/{happened['kind']}{often}",
        at_ms=happened["at_ms"],
        queue=work["queue"],
        level=work["level"],
        attempt=happened["attempt"],
        traceparent=traceparent,
    )
    record = Record(work["id"].encode(), EVENT.encode(happened), described, happened["at_ms"])
    return Addressed(Address(settings.topic(topics.events(work["level"])), home), record)


def about_worker(
    settings: Settings,
    kind: EventKind,
    *,
    worker: str,
    at_ms: int,
    running: int,
    upstreams_up: int,
    reason: str | None = None,
) -> Iterator[Addressed]:
    """Address a heartbeat or goodbye to every partition of both lanes: each scheduler hears of every worker."""
    happened = event(kind, at_ms=at_ms, worker=worker, running=running, upstreams_up=upstreams_up, reason=reason)
    described = headers(kind=kind, ce_id=f"{worker}/{at_ms}/{kind}", at_ms=at_ms)
    record = Record(worker.encode(), EVENT.encode(happened), described, at_ms)
    for level in range(len(topics.LEVELS)):
        name = settings.topic(topics.events(level))
        for partition in range(settings.kafka.partitions):
            yield Addressed(Address(name, partition), record)
