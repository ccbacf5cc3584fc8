"""Dead letters: a record that cannot be processed is written to a topic with the reason, and reading continues."""

from __future__ import annotations

from typing import Any

from core.kafka.producer import Producer
from core.kafka.record_format import unread
from core.retry import retry_unavailable
from core.settings.models import Settings
from schemas import topics
from schemas.kafka_record import AddressedRecord, Record
from schemas.partitioning import stable_hash

MAX_REASON = 1000
RETRY_S = 0.5
HEADROOM_BYTES = 8192
"""Bytes reserved for added headers and framing; a larger value is not copied."""
KEY_BYTES = 1024
"""Bytes of that for the key; a longer key reduces the room for the value."""
ADDED_HEADERS = (
    "x-reason",
    "x-field",
    "x-topic",
    "x-partition",
    "x-offset",
    "x-attempt",
    "x-left-behind-bytes",
    "x-unread-to",
)


def dead_letter(
    settings: Settings, record: Any, *, reason: str, field: str | None = None, attempt: int | None = None
) -> AddressedRecord:
    """Build the dead letter of a consumed record.

    Key, value and headers are copied unchanged. A value (then a key) that is too large together with the added headers
    is omitted: x-left-behind-bytes is its size; x-topic, x-partition and x-offset locate the original until that
    topic's retention ends. For a record or batch that could not be decoded, x-unread-to is its last offset.
    """
    key: bytes | None = record.key
    value: bytes | None = record.value
    added = _added(record, reason=reason, field=field, attempt=attempt)
    room = settings.kafka.max_message_bytes - HEADROOM_BYTES
    long_key = max(0, len(key or b"") - KEY_BYTES)
    if len(value or b"") + long_key > room:
        added["x-left-behind-bytes"] = b"%d" % len(value or b"")
        key, value = None if long_key > room else key, None
    if key is None and value is None:
        key = b""  # aiokafka rejects a record without key and value
    original = [(name, content) for name, content in record.headers or () if name not in ADDED_HEADERS]
    if sum(len(name) + len(content or b"") for name, content in original) > HEADROOM_BYTES // 2:
        original = []
    # Not the original timestamp: retention starts when the dead letter is written.
    dead = Record(key, value, [*original, *added.items()])
    return AddressedRecord(settings.topic(topics.DEAD_LETTERS), partition_of(record), dead)


async def send_to_dead_letters(
    producer: Producer,
    settings: Settings,
    record: Any,
    *,
    reason: str,
    field: str | None = None,
    attempt: int | None = None,
) -> None:
    """Write a consumed record to the dead-letter topic; returns once it is durable, and retries until then."""
    address = dead_letter(settings, record, reason=reason, field=field, attempt=attempt)
    await retry_unavailable(lambda: producer.send(*address), delay_s=RETRY_S)


def partition_of(record: Any) -> int:
    """Return the partition for a record of a topic and offset; the same one if it is dead-lettered again."""
    return stable_hash(f"{record.topic}/{record.partition}") % topics.DEAD_LETTER_PARTITIONS


def _added(record: Any, *, reason: str, field: str | None, attempt: int | None) -> dict[str, bytes]:
    added = {
        "x-reason": reason[:MAX_REASON].encode(errors="replace"),
        "x-topic": record.topic.encode(),
        "x-partition": b"%d" % record.partition,
        "x-offset": b"%d" % record.offset,
        "x-attempt": b"%d" % (attempt or 0),  # 0: a record that never became a task was not attempted
    }
    if (why := unread(record)) is not None and not why.whole:
        added["x-unread-to"] = b"%d" % why.last
    if field is not None:
        added["x-field"] = field.encode(errors="replace")
    return added
