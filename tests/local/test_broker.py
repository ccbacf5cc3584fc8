from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from compose.local.broker import EmbeddedBroker
from compose.local.broker_config import Node, server_properties, write_properties
from compose.local.errors import LocalStackError
from compose.local.probe import brokers_alive
from compose.local.process import tail
from tests.support.ports import free_port
from tests.support.waiting import eventually

HEAP_MB = 256
CLUSTER_NODES = 3


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path / "kafka", heap_mb=HEAP_MB)
    yield broker
    broker.kill()


async def test_records_survive_a_stop_and_a_kill(broker: EmbeddedBroker) -> None:
    broker.start()
    broker.wait_ready()
    mark = broker.data_dir / "data" / "meta.properties"
    formatted = mark.read_text()
    await _create(broker, "kept")
    await _append(broker, "kept", b"one")
    broker.stop()
    assert broker.pid is None
    assert not brokers_alive("127.0.0.1", broker.node.port)

    broker.start()
    broker.wait_ready()
    await _append(broker, "kept", b"two")
    broker.kill()

    broker.start()
    broker.wait_ready()
    assert await _read(broker, "kept", 2) == [b"one", b"two"]
    assert mark.read_text() == formatted, "the folder was formatted again"
    assert any("KafkaRaftServer" in line for line in tail(broker.log)), "Kafka logs to its file"
    assert tail(broker.output) == [], "the JVM has nothing to complain about"


def test_a_broker_without_its_port_says_why(broker: EmbeddedBroker, tmp_path: Path) -> None:
    broker.start()
    broker.wait_ready()
    second = EmbeddedBroker(
        tmp_path / "second", heap_mb=HEAP_MB, node=Node(id=1, port=broker.node.port, controller_port=free_port())
    )
    second.start()
    try:
        eventually(lambda: not second.is_running())  # not wait_ready: the first answers on the port
        assert "Address already in use" in second.last_error()
        with pytest.raises(LocalStackError, match=r"the broker ended while it started: .* in use.*; see .*broker\.log"):
            second.wait_ready()
    finally:
        second.kill()


def test_three_nodes_form_a_cluster(tmp_path: Path) -> None:
    nodes = [Node(id=number, port=free_port(), controller_port=free_port()) for number in range(1, CLUSTER_NODES + 1)]
    brokers = [EmbeddedBroker(tmp_path / str(node.id), node=node, nodes=nodes, heap_mb=HEAP_MB) for node in nodes]
    try:
        for broker in brokers:
            broker.start()
        for broker in brokers:
            broker.wait_ready()
        eventually(lambda: brokers_alive("127.0.0.1", nodes[0].port) == CLUSTER_NODES)
    finally:
        for broker in brokers:
            broker.kill()


def test_one_machine_needs_one_copy_and_a_cluster_three() -> None:
    nodes = [Node(id=number, port=number, controller_port=number + 10) for number in (1, 2, 3)]
    alone = server_properties(nodes[0], nodes[:1], logs=Path("/x"), max_message_bytes=1000, extra={"a": "b"})
    cluster = server_properties(nodes[0], nodes, logs=Path("/x"), max_message_bytes=1000, extra={})
    assert (alone["offsets.topic.replication.factor"], cluster["offsets.topic.replication.factor"]) == ("1", "3")
    assert (alone["min.insync.replicas"], cluster["min.insync.replicas"]) == ("1", "2")
    assert alone["a"] == "b"
    assert alone["auto.create.topics.enable"] == "false"
    assert cluster["controller.quorum.voters"] == "1@127.0.0.1:11,2@127.0.0.1:12,3@127.0.0.1:13"


def test_properties_are_written_as_java_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "server.properties"
    write_properties(path, {"log.dirs": "/home/jürgen/a\\b/🚰"})
    assert path.read_bytes() == rb"log.dirs=/home/j\u00fcrgen/a\\b/\ud83d\udeb0" + b"\n"


def test_a_comma_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="without a comma"):
        EmbeddedBroker(tmp_path / "a,b").start()


async def _create(broker: EmbeddedBroker, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def _append(broker: EmbeddedBroker, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def _read(broker: EmbeddedBroker, topic: str, count: int) -> list[bytes | None]:
    async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return [(await consumer.getone()).value for _ in range(count)]
