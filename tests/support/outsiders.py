"""Producers of others as they are used in the field: confluent-kafka, with its codecs and transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from core.kafka.producer import Record

WAIT_S = 60


def outsider(bootstrap: str, **named: Any) -> Producer:
    """Return a producer; the dots of its options are given as double underscores."""
    return Producer({"bootstrap.servers": bootstrap, **{key.replace("__", "."): value for key, value in named.items()}})


def transactional(bootstrap: str, name: str, **named: Any) -> Producer:
    """Return a producer that can begin transactions."""
    producer = outsider(bootstrap, transactional__id=name, **named)
    producer.init_transactions(WAIT_S)
    return producer


def write(producer: Producer, topic: str, partition: int, records: Sequence[Record]) -> list[int]:
    """Write records and return their offsets once they are there."""
    offsets: list[int] = []

    def told(error: Any, message: Any) -> None:
        assert error is None, error
        offsets.append(message.offset())

    for record in records:
        producer.produce(
            topic, record.value, key=record.key, partition=partition, headers=record.headers, on_delivery=told
        )
    assert producer.flush(WAIT_S) == 0
    return offsets
