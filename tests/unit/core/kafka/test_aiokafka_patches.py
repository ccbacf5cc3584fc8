"""A request on a connection that broke a moment ago: on uvloop it fails as on asyncio's own loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from inspect import getsource, iscoroutinefunction, signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Subscription
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

from core.kafka import aiokafka_patches

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def as_it_was() -> Iterator[None]:
    yield
    AIOKafkaConnection.send = aiokafka_patches._send
    AIOKafkaClient._metadata_update = aiokafka_patches._update


async def ask_after_a_break() -> None:
    """Send on a connection whose other side is gone, before anybody has read of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        _, writer = await asyncio.open_connection(host, port)
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.close()
        connection = AIOKafkaConnection(host, port)
        connection._writer = writer
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        try:
            await connection.send(ApiVersionRequest())
        finally:
            writer.close()
            connection._writer = None


def test_uvloop_speaks_of_a_break_in_its_own_way(as_it_was: None) -> None:
    """As long as this holds the mend is needed."""
    AIOKafkaConnection.send = aiokafka_patches._send
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(RuntimeError):
        runner.run(ask_after_a_break())


def test_a_break_is_an_error_of_kafka(as_it_was: None) -> None:
    aiokafka_patches.patch_connections()
    aiokafka_patches.patch_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(KafkaConnectionError):
        runner.run(ask_after_a_break())


def test_the_private_parts_that_are_used_exist() -> None:
    """Canary: fails when an update of aiokafka renames or drops one of them."""
    for owner, name in (
        (AIOKafkaConsumer, "_client"),
        (AIOKafkaConsumer, "_subscription"),
        (AIOKafkaConsumer, "_coordinator"),
        (AIOKafkaAdminClient, "_client"),
        (AIOKafkaProducer, "_closed"),
        (AIOKafkaProducer, "_sender"),
        (AIOKafkaClient, "_topics"),
    ):
        assert f"self.{name} = " in getsource(owner), f"{owner.__name__}.{name}"
    assert iscoroutinefunction(AIOKafkaAdminClient._send_request)
    assert iscoroutinefunction(AIOKafkaClient._wait_on_metadata)
    assert callable(AIOKafkaClient.force_metadata_update)
    assert list(signature(aiokafka_patches._update).parameters) == ["self", "cluster_metadata", "topics"]
    assert "self._metadata_update(self.cluster, topics)" in getsource(AIOKafkaClient._md_synchronizer)
    assert hasattr(Subscription, "assignment")
    assert iscoroutinefunction(GroupCoordinator._do_heartbeat)


class Client:
    """The part of aiokafka's client that holds topics."""

    def __init__(self) -> None:
        self._topics: set[str] = set()
        self.asked = 0

    async def set_topics(self, topics: set[str]) -> None:
        self.asked += 1
        self._topics = topics


async def test_topics_are_added_to_those_of_a_client() -> None:
    client = Client()
    for topics in (["a"], ["b"], ["a"]):
        await aiokafka_patches.add_topics(client, topics)
    assert (client._topics, client.asked) == ({"a", "b"}, 2)


class Metadata:
    """The part of aiokafka's client that asks for metadata; the topic `gone` does not exist."""

    def __init__(self) -> None:
        self.cluster = SimpleNamespace(partitions_for_topic=lambda topic: None if topic == "gone" else {0})
        self.asked = 0

    async def update(self, *_: object) -> bool:
        self.asked += 1
        return True


async def test_a_topic_that_does_not_exist_is_not_asked_for_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    client, pauses = Metadata(), list[float]()

    async def paused(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(aiokafka_patches, "_update", Metadata.update)
    monkeypatch.setattr(asyncio, "sleep", paused)
    for topics in ({"there"}, {"there"}, {"gone"}, {"gone"}, {"there"}, {"gone"}):
        await aiokafka_patches._spaced_update(client, client.cluster, topics)
    assert client.asked == 6
    [pause] = pauses
    assert 0 < pause <= aiokafka_patches.ABSENT_S


def test_only_this_module_and_those_of_faust_use_private_names() -> None:
    """An access to a private name needs a `noqa`, which only these modules may have for aiokafka and Faust."""
    root = Path(__file__).parents[4]
    allowed = {"core/kafka/aiokafka_patches.py", "core/settings/loader.py", "dispatcher/inference/upstream.py"}
    found = {
        str(path.relative_to(root))
        for package in ("core", "schemas", "ingress", "dispatcher", "streams", "headrace", "compose")
        for path in (root / package).rglob("*.py")
        if "SLF001" in path.read_text()
    }
    assert {path for path in found if not path.startswith("streams/faust/")} <= allowed
