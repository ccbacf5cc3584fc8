"""What workers send and are answered; what follows from it is tested with the real roles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition

from core.settings.models import AuthSettings, Settings
from schemas import ids, topics
from schemas.codec import EVENT
from schemas.records import Queue, Task
from tests.support.bella import BODY, PUT, Double, envelope, row_of
from tests.support.memory_ingress import ingress_in_memory
from tests.support.records import queue
from tests.support.tasks import put_one

KEYS = """
[[tenants.workers.keys]]
key = "sk-workers"
[[tenants.producers.keys]]
key = "sk-producers"
"""
WORKERS = {"authorization": "Bearer sk-workers"}
PRODUCERS = {"authorization": "Bearer sk-producers"}
CHAT = {"queue": "chat", "endpoint": "/v1/chat/completions"}


class Directory:
    """Registered queues in memory."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}

    def get(self, name: str) -> Queue | None:
        return self.queues.get(name)

    async def register(self, _: Any, name: str, **fields: Any) -> Queue:
        return self.queues.setdefault(name, queue(name, **fields))


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Double]:
    (tmp_path / "keys.toml").write_text(KEYS)
    settings = Settings(data_dir=tmp_path, auth=AuthSettings(keys_file=tmp_path / "keys.toml"))
    async with ingress_in_memory(settings) as double:
        memory, client = double
        memory.replace(queues=Directory())
        memory.replace(producer=memory)
        client.headers.update(WORKERS)
        yield double


async def registered(client: httpx.AsyncClient, **changes: Any) -> None:
    response = await client.post("/v1/queue/register", json={**CHAT, **changes})
    assert (response.status_code, response.content) == (200, b'"%b"' % changes.get("queue", "chat").encode())
    assert response.headers["content-type"] == "application/json"


async def test_a_name_is_registered_once(ingress: Double) -> None:
    memory, client = ingress
    await registered(client)
    queue = memory.connected.queues.get("chat")
    assert (queue["served_by"], queue["explicit"], queue["owner"]) == ("workers", True, "workers")
    for headers in (WORKERS, PRODUCERS):
        refused = envelope(await client.post("/v1/queue/register", json=CHAT, headers=headers))
        assert refused == {"code": 400, "message": "queue chat is registered already", "field": "queue"}


async def test_metadata_shows_a_queue_and_nothing_where_there_is_none(ingress: Double) -> None:
    _, client = ingress
    assert (await client.get("/v1/queue/chat/metadata")).content == b""
    await registered(client, served_by="dispatcher")
    response = await client.get("/v1/queue/chat/metadata", headers=PRODUCERS)
    assert response.content == b'{"queue":"chat","endpoint":"/v1/chat/completions","served_by":"dispatcher"}'


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("register", {"queue": "chat"}, "endpoint"),
        ("register", {"endpoint": "/v1/x"}, "queue"),
        ("register", {"queue": "a b", "endpoint": "/v1/x"}, "queue"),
        ("register", {"queue": "chat", "endpoint": "http://x"}, "endpoint"),
        ("register", {**CHAT, "served_by": "nobody"}, "served_by"),
        ("register", [], "body"),
        ("take", {}, "queues"),
        ("take", {"queues": []}, "queues"),
        ("take", {"queues": "chat:0"}, "queues"),
        ("take", {"queues": ["chat"]}, "queues"),
        ("take", {"queues": ["chat:2"]}, "queues"),
        ("take", {"queues": [7]}, "queues"),
        ("take", {"queues": ["chat:0"] * 300}, "queues"),
        ("take", {"queues": ["chat:0"], "size": 0}, "size"),
        ("take", {"queues": ["chat:0"], "size": True}, "size"),
        ("take", {"queues": ["chat:0"], "strategy": "lifo"}, "strategy"),
        ("take", {"queues": ["chat:0"], "strategy": {}}, "strategy"),
        ("take", {"queues": ["chat:0"], "process_timeout": -1}, "process_timeout"),
        ("take", {"queues": ["chat:0"], "process_timeout": 1e9}, "process_timeout"),
        ("take", {"queues": ["chat:0"], "process_max_retries": -2}, "process_max_retries"),
        ("take", {"queues": ["chat:0"], "min_age_seconds": "9"}, "min_age_seconds"),
        ("TASK-1-0-C-260131120000-0000-007000/complete", {"body": 1, "status_code": 99}, "status_code"),
        ("TASK-1-0-C-260131120000-0000-007000/complete", {"body": 1, "status_code": "ok"}, "status_code"),
        ("TASK-1-0-C-260131120000-0000-007000/complete", {"body": 1, "attempt": 0}, "attempt"),
        ("TASK-1-0-C-260131120000-0000-007000/complete", {}, "body"),
        ("TASK-1-0-C-260131120000-0000-007000/complete", {"status_code": 204, "body": None}, "body"),
        ("TASK-1-0-C-260131120000-0000-007000/complete", {"body": 1, "request_id": 7}, "request_id"),
    ],
)
async def test_a_wrong_member_is_named(ingress: Double, path: str, body: Any, field: str) -> None:
    refused = envelope(await ingress[1].post(f"/v1/queue/{path}", content=json.dumps(body)))
    assert (refused["code"], refused["field"]) == (400, field)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "take", {"queues": ["chat:0"]}),
        ("POST", "take", {"queues": ["nobody:0"]}),
        ("GET", "chat:0/stats", None),
        ("GET", "nobody:1/stats", None),
        ("POST", "nonsense/complete", {"body": 1}),
        ("POST", "TASK-1-0-C-260131120000-0000-007000/complete", {"body": 1}),
        ("GET", "eventbus", None),
    ],
)
async def test_what_is_not_the_callers_is_not_there(ingress: Double, method: str, path: str, body: Any) -> None:
    _, client = ingress
    await registered(client)
    response = await client.request(method, f"/v1/queue/{path}", json=body, headers=PRODUCERS)
    assert envelope(response)["code"] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "register"),
        ("POST", "take"),
        ("POST", "T/complete"),
        ("GET", "q/metadata"),
        ("GET", "q:0/stats"),
        ("GET", "eventbus"),
    ],
)
async def test_nothing_is_told_without_a_key(ingress: Double, method: str, path: str) -> None:
    response = await ingress[1].request(method, f"/v1/queue/{path}", headers={"authorization": "Bearer x"})
    assert envelope(response)["code"] == 401


async def test_of_a_paused_queue_nothing_is_taken(ingress: Double) -> None:
    memory, client = ingress
    await registered(client)
    assert (await client.post(PUT, json=BODY)).status_code == 200
    task = await put_one(ingress)
    row = row_of(task, 0, deadline_ms=1 << 60)
    memory.rows[row["id"].encode()] = row
    memory.connected.queues.queues["chat"]["paused"] = True
    response = await client.post("/v1/queue/take", json={"queues": ["chat:0"]})
    assert (response.status_code, response.json()) == (200, {})
    assert not memory.written(topics.events(0)), "nobody has claimed it"


async def held(ingress: Double, **changes: Any) -> Task:
    """Put a task whose row says that a worker holds it."""
    memory, client = ingress
    await registered(client)
    assert (await client.post(PUT, json=BODY)).status_code == 200
    task = await put_one(ingress)
    row = row_of(task, 0, state="processing", worker="pull/w", attempt=3, started_ms=5, lease_until_ms=9, **changes)
    memory.rows[row["id"].encode()] = row
    return task


async def test_complete_speaks_for_the_holder(ingress: Double) -> None:
    memory, client = ingress
    task = await held(ingress)
    body = b'{"status_code":"503","request_id":"%b","body":{"n":12345678901234567890123, "text":"\\u00e9"}}'
    body %= (task["id"] or "").encode()
    response = await client.post(f"/v1/queue/{task['id']}/complete", content=body)
    assert (response.status_code, response.content) == (200, b'"%b"' % (task["id"] or "").encode())
    assert response.headers["x-task-id"] == task["id"]
    [record] = memory.written(topics.events(0))
    told = EVENT.decode(record.value or b"")
    assert (told["kind"], told["attempt"], told["worker"]) == ("finished", 3, "pull/w")
    outcome = told["outcome"]
    assert outcome is not None
    assert outcome["body"] == b'{"n":12345678901234567890123, "text":"\\u00e9"}'
    assert (outcome["status_code"], outcome["error_code"], outcome["retriable"]) == (503, "worker_error", False)


async def test_complete_speaks_for_the_holder_that_the_log_knows(
    ingress: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, client = ingress
    task = await held(ingress)
    key = (task["id"] or "").encode()

    async def catch_up(tp: TopicPartition, _: int) -> int:
        assert tp == memory.topic_partition(topics.status(0), ids.parse(task["id"] or "").partition)
        memory.rows[key] = {**memory.rows[key], "attempt": 4, "worker": "pull/x"}
        return 0

    monkeypatch.setattr(memory, "offset_at", catch_up)
    assert (await client.post(f"/v1/queue/{task['id']}/complete", json={"body": 1})).status_code == 200
    [record] = memory.written(topics.events(0))
    told = EVENT.decode(record.value or b"")
    assert (told["attempt"], told["worker"]) == (4, "pull/x")


@pytest.mark.parametrize(
    "late", [{"lease_until_ms": None, "worker": "w1"}, {"lease_until_ms": None, "state": "failed"}]
)
async def test_what_comes_too_late_is_answered_alike_and_changes_nothing(ingress: Double, late: dict[str, Any]) -> None:
    memory, client = ingress
    task = await held(ingress)
    key = (task["id"] or "").encode()
    memory.rows[key] = {**memory.rows[key], "lease_until_ms": None, **late}  # type: ignore[typeddict-item]
    response = await client.post(f"/v1/queue/{task['id']}/complete", json={"body": 1})
    assert (response.status_code, response.json()) == (200, task["id"])
    assert memory.written(topics.events(0)) == []


async def test_an_outcome_of_an_older_attempt_is_dropped(ingress: Double) -> None:
    memory, client = ingress
    task = await held(ingress)
    response = await client.post(f"/v1/queue/{task['id']}/complete", json={"body": 1, "attempt": 2})
    assert (response.status_code, response.json()) == (200, task["id"])
    assert memory.written(topics.events(0)) == []


async def test_an_outcome_that_names_another_task_is_refused(ingress: Double) -> None:
    memory, client = ingress
    task_id = ids.parse((await held(ingress))["id"] or "")
    path = f"/v1/queue/{task_id}/complete"
    for named in (str(task_id._replace(serial=1)), task_id._replace(serial=1).uuid(), "R", ""):
        refused = envelope(await client.post(path, json={"body": 1, "request_id": named}))
        assert (refused["code"], refused["field"]) == (400, "request_id")
    assert memory.written(topics.events(0)) == []
    for named in (str(task_id), task_id.task(), task_id.request(), task_id.batch_request(), task_id.uuid(), None):
        response = await client.post(path, json={"body": 1, "request_id": named})
        assert (response.status_code, response.json()) == (200, str(task_id))


async def test_only_the_registrant_completes(ingress: Double) -> None:
    memory, client = ingress
    task = await held(ingress)
    response = await client.post(f"/v1/queue/{task['id']}/complete", json={"body": 1}, headers=PRODUCERS)
    assert envelope(response) == {"code": 404, "message": f"there is no task {task['id']}"}
    assert memory.written(topics.events(0)) == []


async def test_stats_are_bellas_head_row(ingress: Double) -> None:
    _, client = ingress
    task = await held(ingress)
    response = await client.get("/v1/queue/chat:0/stats")
    shard = (task["id"] or "").split("-")[5]
    assert response.json() == {
        "queue": "chat",
        "level": 0,
        "last_wrote_sharding_key": shard,
        "last_wrote_id": task["id"],
        "last_scanned_sharding_key": shard,
        "last_scanned_id": task["id"],
        "total_put_cnt": 1,
        "total_loaded_cnt": 1,
        "total_completed_cnt": 0,
    }
    empty = {"queue": "chat", "level": 1, "total_put_cnt": 0, "total_loaded_cnt": 0, "total_completed_cnt": 0}
    assert (await client.get("/v1/queue/chat%3A1/stats")).json() == empty
