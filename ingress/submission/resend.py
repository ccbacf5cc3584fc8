"""Resend a webhook of a task or a batch: parse the request, and write the records that start a new delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

import orjson

from core import deliveries
from core.clock import epoch_ms
from core.errors import InvalidRequest
from core.kafka.producer import Producer
from core.settings.models import Settings
from ingress.read_model.deliveries import Deliveries
from schemas.records import Delivery

MAX_BODY = 4_096
VISIBLE_TIMEOUT_S = 2.0


def requested_event(body: bytes, events: Collection[str]) -> str | None:
    """Parse which webhook to resend; an empty body means that of the outcome. Raises InvalidRequest."""
    if not body.strip():
        return None
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        members = None
    if not isinstance(members, dict):
        raise InvalidRequest("the body must be a JSON object, or empty", field="body")
    for name in members:
        if name != "event":
            raise InvalidRequest(f"there is no member {name[:40]}; there is event", field=name[:40])
    event: str | None = members.get("event")
    if event is not None and event not in events:
        raise InvalidRequest(f"event must be one of {', '.join(events)}", field="event")
    return event


async def restart_delivery(settings: Settings, producer: Producer, known: Deliveries, delivery: Delivery) -> Delivery:
    """Start a new delivery and return it, once its row is visible here or VISIBLE_TIMEOUT_S has passed."""
    now_ms = epoch_ms()
    delivery = deliveries.resent(delivery, now_ms=now_ms)
    row = deliveries.row(settings, delivery, now_ms=now_ms)
    # The row first: records of the delivery worker must come after it.
    offset = await producer.send(*row)
    await producer.send(*deliveries.retry_record(settings, delivery, delay_s=0, now_ms=now_ms))
    with suppress(TimeoutError):
        async with asyncio.timeout(VISIBLE_TIMEOUT_S):
            await known.wait_for_offset(row.partition, offset)
    return delivery
