"""Lease the slot of task serials that this process may use; renewed every hour."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket

from core.clock import epoch_ms
from core.errors import Unavailable
from core.kafka.producer import Producer, Record
from core.settings.models import Settings
from schemas import topics
from schemas.codec import INSTANCE
from schemas.headers import headers
from schemas.ids import Serials

log = logging.getLogger(__name__)

RENEW_S = 3_600
"""Slots are reused after 1,000 leases: a long-running process must renew before other processes restart that often."""


async def lease_slot(settings: Settings, producer: Producer) -> int:
    """Return a slot that none of the previous 999 leases returned; raises Unavailable.

    The offset of a record on the one partition of the instances topic is a number that no other process gets, so no
    coordination is needed: a slot is reused after 1,000 leases.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    now_ms = epoch_ms()
    record = Record(
        name.encode(),
        INSTANCE.encode({"name": name, "started_ms": now_ms}),
        headers(kind="instance", ce_id=name, at_ms=now_ms),
        now_ms,
    )
    return await producer.send(settings.topic(topics.INSTANCES), 0, record) % Serials.SLOTS


async def renew_slot(settings: Settings, producer: Producer, serials: Serials) -> None:
    """Change to a new slot every hour until cancelled."""
    while True:
        await asyncio.sleep(RENEW_S)
        try:
            serials.slot = await lease_slot(settings, producer)
        except Unavailable as error:
            log.warning(
                "cannot renew the serial slot, retrying in an hour: %s",
                error,
                extra={"event": "serial_slot_renewal_failed"},
            )
