"""What /readyz blames: the model server only when that is it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import ConsumerRecord, TopicPartition

from core.errors import Unavailable
from core.settings.models import Settings
from ingress.http import readiness
from schemas.codec import CONTROL
from schemas.records import Control, Worker
from tests.support.memory_ingress import Memory, ingress_in_memory
from tests.support.ports import free_port
from tests.support.records import queue

World = tuple[Memory, httpx.AsyncClient]
PARTITIONS = 2


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Give an ingress whose only upstream is at a port that nobody listens on."""
    monkeypatch.setattr(readiness, "CACHE_S", 0.0)
    urls = [f"http://127.0.0.1:{free_port()}/v1"]
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "upstream": {"urls": urls}, "kafka": {"partitions": PARTITIONS}}
    )
    async with ingress_in_memory(settings) as (memory, client):
        memory.ingress.cluster.there = True
        yield memory, client


def speak(memory: Memory, *, levels: Iterable[int] = (0, 1), upstreams_up: int | None = 1) -> None:
    """Let schedulers of these lanes tell of a worker with so many upstreams; of none with None."""
    now_ms = time.time_ns() // 1_000_000
    worker: Worker = {"name": "w", "seen_ms": now_ms, "running": 0, "upstreams_up": upstreams_up or 0}
    for level in levels:
        control: Control = {
            "kind": "pulse",
            "at_ms": now_ms,
            "level": level,
            "id": "",
            "reason": None,
            "scheduler": f"s{level}",
            "partitions": [*range(PARTITIONS)],
            "workers": [] if upstreams_up is None else [worker],
        }
        record: Any = ConsumerRecord("t", 0, 0, 0, 0, b"k", CONTROL.encode(control), 0, 1, 1, ())
        memory.connected.liveness.feed(TopicPartition("t", 0), [record])


async def missing(client: httpx.AsyncClient) -> list[str]:
    answer = await client.get("/readyz")
    found: list[str] = answer.json()["missing"]
    assert answer.json()["ready"] is not bool(found)
    assert answer.status_code == (503 if found else 200)
    return found


async def test_a_server_that_refuses_connections_is_named(world: World) -> None:
    memory, client = world
    speak(memory, upstreams_up=0)
    [base] = memory.settings.upstream.urls
    assert await missing(client) == [f"no upstream model server answers: {base} refuses connections"]


async def test_a_server_that_answers_is_not_blamed(world: World) -> None:
    memory, client = world
    speak(memory, upstreams_up=0)
    port = int(memory.settings.upstream.urls[0].split(":")[2].split("/")[0])

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Loading\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(busy, "127.0.0.1", port):
        [told] = await missing(client)
    assert told.startswith("no dispatcher has an upstream that takes its calls, although this process gets answers of ")
    assert "refuses" not in told


async def test_a_silent_dispatcher_is_no_fault_of_the_server(world: World) -> None:
    memory, client = world
    speak(memory, upstreams_up=None)
    assert await missing(client) == [
        "no heartbeat from a dispatcher in the last 10 s; start one with `headrace dispatcher`"
    ]
    speak(memory)
    assert await missing(client) == []


async def test_a_missing_topic_stands_before_what_it_silences(world: World) -> None:
    memory, client = world
    memory.connected.queues._queues = {"chat": queue("chat"), "fetched": queue("fetched", served_by="workers")}
    memory.ingress.cluster.gone = {"headrace.work.chat.online", "headrace.work.chat.offline"}
    speak(memory, levels=[1], upstreams_up=0)
    told = await missing(client)
    assert told[0] == (
        "there is no topic headrace.work.chat.online, headrace.work.chat.offline; run `headrace topics apply`"
    )
    assert [sentence.split()[0:3] for sentence in told[1:]] == [
        ["no", "heartbeat", "from"],
        ["no", "upstream", "model"],
    ]
    memory.ingress.cluster.there = False
    told = await missing(client)
    assert told[0].startswith("there is no topic ")
    assert told[0].endswith(" more; run `headrace topics apply`")
    speak(memory)
    assert await missing(client) == []


async def test_topics_that_need_attention_are_warnings_while_the_path_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, client = world
    monkeypatch.setattr(readiness, "READY_CACHE_S", 0.0)
    speak(memory)
    assert (await client.get("/readyz")).json() == {"ready": True, "missing": [], "warnings": []}
    memory.ingress.cluster.gone = {"headrace.chunks"}
    memory.ingress.cluster.counts = {"headrace.tasks.online": 3, "headrace.results.online": 1, "headrace.usage": 3}
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    absent, tasks, results = answer.json()["warnings"]
    assert absent == "there is no topic headrace.chunks; run `headrace topics apply`"
    assert "topic headrace.tasks.online has 3 partitions instead of 2" in tasks
    assert "topic headrace.results.online has 1 partitions and needs 2" in results


async def test_topics_that_were_missing_during_the_start_are_no_warnings_afterwards(world: World) -> None:
    memory, client = world
    memory.ingress.cluster.gone = {"headrace.chunks"}
    speak(memory, levels=[1])
    assert (await missing(client))[0].startswith("there is no topic headrace.chunks")
    memory.ingress.cluster.gone = set()
    speak(memory)
    assert (await client.get("/readyz")).json() == {"ready": True, "missing": [], "warnings": []}


async def test_where_kafka_does_not_answer_nobody_else_is_blamed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = world

    async def away(_: Iterable[str]) -> dict[str, int]:
        raise Unavailable("no broker")

    monkeypatch.setattr(memory.ingress.cluster, "topics", away)
    speak(memory, upstreams_up=0)
    assert await missing(client) == ["Kafka at 127.0.0.1:9092 does not answer"]


async def test_a_start_that_is_under_way_says_how_far_it_is(world: World) -> None:
    memory, client = world
    memory.ingress.connection = None
    assert await missing(client) == ["Kafka at 127.0.0.1:9092 has not been reached yet"]
    memory.ingress.broker_reached = True
    assert await missing(client) == ["Kafka at 127.0.0.1:9092 was reached; what it holds is still being read"]
    memory.ingress.cluster.there = False
    [told] = await missing(client)
    assert told.startswith("Kafka at 127.0.0.1:9092 was reached; there is no topic headrace.")


async def test_the_topics_are_looked_at_once_for_all_who_ask(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = world
    monkeypatch.setattr(readiness, "CACHE_S", 60.0)
    looks: list[object] = []

    async def counted(names: Iterable[str]) -> dict[str, int]:
        looks.append(names)
        return dict.fromkeys(names, 1)

    monkeypatch.setattr(memory.ingress.cluster, "topics", counted)
    await asyncio.gather(*(missing(client) for _ in range(5)))
    assert len(looks) == 1
