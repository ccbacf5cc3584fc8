"""The Kafka that tests run on: one that was named, one in a container, or the embedded broker; and topics on it."""

from __future__ import annotations

import itertools
import logging
import os
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from compose.local.broker import EmbeddedBroker
from compose.local.broker_config import Node, server_properties
from compose.local.jars import KAFKA_VERSION
from compose.local.ports import free_port
from compose.local.probe import brokers_alive
from core.kafka.admin import admin, apply_topics, wanted_configs
from core.settings.models import Settings
from schemas.topics import declared

logger = logging.getLogger(__name__)

VARIABLE = "HEADRACE_TEST_KAFKA"
NONE = "none"
"""In place of an address: tests that need a broker fail instead of starting one."""
HEAP_MB = 384
CONTAINER_LIMIT_S = 60


def kafka_wanted() -> bool:
    """Tell whether tests may use a broker."""
    return os.environ.get(VARIABLE) != NONE


@contextmanager
def kafka_for_tests(data_dir: Path) -> Iterator[str]:
    """Give the bootstrap address of a broker for as long as the block lasts."""
    with ExitStack() as stack:
        named = os.environ.get(VARIABLE)
        yield named or (docker_answers() and _contained(stack)) or stack.enter_context(_embedded(data_dir))


@contextmanager
def _embedded(data_dir: Path) -> Iterator[str]:
    # Only the first compiler tier: tests are over before the second has paid for itself.
    broker = EmbeddedBroker(data_dir, heap_mb=HEAP_MB, jvm_options=["-XX:TieredStopAtLevel=1"])
    broker.start()
    try:
        broker.wait_ready()
        yield broker.bootstrap
    finally:
        broker.stop()


@contextmanager
def patient_lookups() -> Iterator[None]:
    """Let look-ups of this process wait for longer than a machine stands still; theirs are three seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("core.kafka.log_reader.TIMEOUT_S", 60)
        yield


@asynccontextmanager
async def declared_topics(settings: Settings) -> AsyncIterator[None]:
    """Create the declared topics, and delete everything below their prefix at the end.

    A broker that keeps the topics of hundreds of tests becomes slow for those that come after them.
    """
    async with own_prefix(settings):
        await apply_topics(_patient(settings))
        yield


async def compress(settings: Settings) -> None:
    """Have the broker write the declared topics in all codecs in turn, so that every reader meets each of them."""
    codecs = itertools.cycle(("zstd", "lz4", "snappy", "gzip"))
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC,
            settings.topic(topic.name),
            wanted_configs(settings, topic) | {"compression.type": next(codecs)},
        )
        for topic in declared(partitions=settings.kafka.partitions)
    ]
    async with admin(_patient(settings)) as client:
        for response in await client.alter_configs(resources):
            assert not any(code for code, *_ in response.resources), response.resources


@asynccontextmanager
async def own_prefix(settings: Settings) -> AsyncIterator[None]:
    """Delete every topic below a prefix at the end."""
    try:
        yield
    finally:
        async with admin(_patient(settings)) as client:
            ours = [name for name in await client.list_topics() if name.startswith(settings.kafka.topic_prefix)]
            await client.delete_topics(ours)


def _patient(settings: Settings) -> Settings:
    """Wait for a busy broker, however soon the roles of the test are to give up on it."""
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"request_timeout_s": 60})})


def docker_answers() -> bool:
    """Tell whether a Docker engine answers a ping."""
    if not (os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        return False
    import docker  # comes with testcontainers

    try:
        client = docker.from_env(timeout=3)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False
    finally:
        client.close()


def _contained(stack: ExitStack) -> str | None:
    """Start the same version of Kafka in a container; None when that fails, for example without its image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # testcontainers warns of its own deprecations
        from testcontainers.core.container import DockerContainer

        port = free_port()
        inside = Node(id=1, port=9092, controller_port=9093)
        extra = {
            "listeners": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        }
        settings = server_properties(
            inside, [inside], logs=Path("/var/lib/kafka/data"), max_message_bytes=1_048_576, extra=extra
        )
        container = DockerContainer(f"apache/kafka:{KAFKA_VERSION}").with_bind_ports(9092, port)
        for name, value in settings.items():
            container = container.with_env("KAFKA_" + name.replace(".", "_").upper(), value)
        try:
            stack.enter_context(container)
        except Exception as error:  # noqa: BLE001 - any of docker's, requests' or urllib3's errors: the embedded broker stands in
            logger.warning("no Kafka in a container: %s", error)
            return None
    give_up = time.monotonic() + CONTAINER_LIMIT_S
    while not brokers_alive("127.0.0.1", port):
        if time.monotonic() > give_up:
            logger.warning("Kafka in a container does not answer after %d s", CONTAINER_LIMIT_S)
            return None
        time.sleep(0.2)
    return f"127.0.0.1:{port}"
