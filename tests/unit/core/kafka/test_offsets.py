"""Offsets of many partitions: one request to each leader, and another try where a leader has moved."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import NotLeaderForPartitionError, TopicAuthorizationFailedError

from core.kafka import offsets
from core.kafka.offsets import LATEST, offsets_at, retried

TPS = [TopicPartition(topic, number) for topic in ("a", "b") for number in range(4)]


class Client:
    """Two brokers, each the leader of half of the partitions; refuses some requests first."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.requests: Counter[int] = Counter()
        self.updates = 0
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: tp.partition % 2)

    async def send(self, node: int, request: Any) -> Any:
        self.requests[node] += 1
        code = self.codes.pop(0) if self.codes else 0
        asked = request._topics
        return SimpleNamespace(
            topics=[(topic, [(number, code, 0, 10 + number) for number, _ in several]) for topic, several in asked]
        )

    def force_metadata_update(self) -> None:
        """Count."""
        self.updates += 1


async def test_each_leader_is_asked_once_for_all_of_its_partitions() -> None:
    client: Any = Client()
    found = await offsets_at(client, TPS, LATEST)
    assert found == {tp: 10 + tp.partition for tp in TPS}
    assert client.requests == {0: 1, 1: 1}


async def test_a_leader_that_has_moved_is_looked_up_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "RETRY_S", 0)
    client: Any = Client(NotLeaderForPartitionError.errno)
    assert len(await retried(client, lambda one: offsets_at(one, TPS, LATEST))) == len(TPS)
    assert client.updates == 1


async def test_what_does_not_pass_by_itself_is_raised_at_once() -> None:
    client: Any = Client(TopicAuthorizationFailedError.errno)
    with pytest.raises(TopicAuthorizationFailedError):
        await retried(client, lambda one: offsets_at(one, TPS, LATEST))
    assert client.updates == 0
