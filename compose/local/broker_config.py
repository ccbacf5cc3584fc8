"""Files of an embedded broker: server.properties and meta.properties."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compose.local.cache import write_atomic
from compose.local.ports import LOOPBACK

# The limit counts batches, which are a little larger than their records.
BATCH_OVERHEAD_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Node:
    """One broker that is also a controller; all nodes of a cluster list each other."""

    id: int
    port: int
    controller_port: int


def server_properties(
    node: Node, nodes: Sequence[Node], *, logs: Path, max_message_bytes: int, extra: Mapping[str, str]
) -> dict[str, str]:
    """Return the broker's settings for one machine: little memory, fast restarts, no automatic topic creation."""
    copies = str(min(3, len(nodes)))
    insync = str(min(2, len(nodes)))
    batch = str(max_message_bytes + BATCH_OVERHEAD_BYTES)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{each.id}@{LOOPBACK}:{each.controller_port}" for each in nodes),
        "listeners": f"PLAINTEXT://{LOOPBACK}:{node.port},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(logs),
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": insync,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "4",
        # Longer than the retention of any topic: a group that returns late must not lose its offsets.
        "offsets.retention.minutes": str(30 * 24 * 60),
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": insync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": insync,
        "share.coordinator.state.topic.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "message.max.bytes": batch,
        "replica.fetch.max.bytes": batch,
        # A killed broker may register again only after its previous session has been fenced. Measured from the
        # kill to the first answer: 11.8 s with Kafka's default of 9 s, 4.3 s with this.
        "broker.session.timeout.ms": "2500",
        "broker.heartbeat.interval.ms": "500",
        "metadata.max.idle.interval.ms": "5000",
        "log.segment.bytes": str(128 << 20),
        "log.index.size.max.bytes": str(1 << 20),  # enough for such a segment; the default maps 20 MB a partition
        "log.cleaner.dedupe.buffer.size": str(16 << 20),  # of 128 MB, a quarter of the whole heap
        "log.cleaner.threads": "1",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "2",
        **extra,
    }


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Java properties file."""
    write_atomic(path, "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items()))


def _escaped(value: str) -> str:
    """Escape a value for a Java properties file: Latin-1, with UTF-16 units for other characters."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (units[i] << 8 | units[i + 1] for i in range(0, len(units), 2))
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


def format_once(logs: Path, node: Node, nodes: Sequence[Node], bootstrap_checkpoint: Path) -> bool:
    """Format an empty folder as Kafka's StorageTool does; returns False if it is formatted already.

    The checkpoint (the feature levels a new cluster starts with) is StorageTool's own and the same for every cluster;
    meta.properties assigns the folder to a cluster and a node. It is written last and marks the format as complete.
    """
    mark = logs / "meta.properties"
    if mark.exists():
        return False
    logs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(bootstrap_checkpoint, logs / "bootstrap.checkpoint")
    cluster = uuid.uuid4() if len(nodes) == 1 else uuid.uuid5(uuid.NAMESPACE_OID, repr(nodes))
    fields = {"version": 1, "cluster.id": _id(cluster), "node.id": node.id, "directory.id": _id(uuid.uuid4())}
    write_atomic(mark, "".join(f"{name}={value}\n" for name, value in fields.items()))
    return True


def _id(value: uuid.UUID) -> str:
    return base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")
