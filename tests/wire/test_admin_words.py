"""What administrators may not say, and what they are told: each wrong member by its name."""

from __future__ import annotations

from typing import Any

import pytest

from core.queues import UNCHANGED, QueueChanges
from schemas import topics
from schemas.codec import EVENT, TASK
from schemas.purge import decode_bounds
from schemas.records import Queue
from tests.support.bella import BODY, PUT, Double, row_of

QUEUES, LETTERS = "/v1/admin/queues", "/v1/admin/dead-letters"


class Directory:
    """Queues as the memory double makes them, with settings."""

    def __init__(self, memory: Any, *names: str) -> None:
        self._queues: dict[str, Queue] = {name: memory.get(name) for name in names}
        self._make = memory.get

    def get(self, name: str) -> Queue | None:
        return self._queues.get(name)

    def all(self) -> list[Queue]:
        return list(self._queues.values())

    async def register(self, _: Any, name: str, *, changes: QueueChanges = UNCHANGED, **fields: Any) -> Queue:
        self._queues[name] = changes.applied({**self._make(name), **fields})
        return self._queues[name]

    async def configure(self, _: Any, name: str, changes: QueueChanges) -> Queue:
        self._queues[name] = changes.applied(self._queues[name])
        return self._queues[name]


@pytest.fixture
def directory(ingress: Double) -> Directory:
    made = Directory(ingress[0], "chat", "batch", "zoo")
    ingress[0].replace(queues=made)
    return made


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", QUEUES, {}, "name"),
        ("POST", QUEUES, {"name": 5}, "name"),
        ("POST", QUEUES, {"name": "a b"}, "name"),
        ("POST", QUEUES, {"name": "chat"}, "name"),
        ("POST", QUEUES, {"name": "new", "endpoint": "nowhere"}, "endpoint"),
        ("POST", QUEUES, {"name": "new", "served_by": "me"}, "served_by"),
        ("POST", QUEUES, {"name": "new", "colour": "red"}, "colour"),
        ("PATCH", f"{QUEUES}/chat", {}, "body"),
        ("PATCH", f"{QUEUES}/chat", {"paused": "yes"}, "paused"),
        ("PATCH", f"{QUEUES}/chat", {"width": 1}, "width"),
        ("PATCH", f"{QUEUES}/chat", {"width": 7}, "width"),
        ("PATCH", f"{QUEUES}/chat", {"concurrency": True}, "concurrency"),
        ("PATCH", f"{QUEUES}/chat", {"concurrency": -1}, "concurrency"),
        ("PATCH", f"{QUEUES}/chat", {"result_retention_s": 604_801}, "result_retention_s"),
        ("PATCH", f"{QUEUES}/chat", {"max_waiting": -1}, "max_waiting"),
        ("POST", f"{QUEUES}/chat/purge", {"level": "both"}, "level"),
        ("POST", f"{QUEUES}/chat/purge", {"level": []}, "level"),
        ("POST", f"{QUEUES}/chat/purge", {"wait_s": 61}, "wait_s"),
        ("POST", f"{LETTERS}/redrive", {"ids": []}, "ids"),
        ("POST", f"{LETTERS}/redrive", {"ids": ["1-1"], "topic": "t"}, "ids"),
        ("POST", f"{LETTERS}/redrive", {"limit": 0}, "limit"),
        ("POST", f"{LETTERS}/purge", {}, "body"),
        ("POST", f"{LETTERS}/purge", {"all": True, "before": "2026-01-31"}, "body"),
        ("POST", f"{LETTERS}/purge", {"before": "tomorrow"}, "before"),
        ("POST", f"{LETTERS}/purge", {"partition": 1}, "offset"),
        ("POST", f"{LETTERS}/purge", {"partition": 4, "offset": 1}, "partition"),
    ],
)
@pytest.mark.usefixtures("directory")
async def test_what_is_wrong_is_named(ingress: Double, method: str, path: str, body: Any, field: str) -> None:
    memory, client = ingress
    response = await client.request(method, path, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, field), response.text
    assert not memory.log


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{QUEUES}?limit=0", "limit"),
        (f"{QUEUES}?limit=²", "limit"),
        (f"{QUEUES}?colour=red", "colour"),
        (f"{LETTERS}?after=1-2", "after"),
        (f"{LETTERS}?redriven=maybe", "redriven"),
        ("/v1/admin/tasks?status=lost", "status"),
        ("/v1/admin/tasks?owner=a&owner=b", "owner"),
    ],
)
async def test_a_wrong_parameter_is_named(ingress: Double, path: str, field: str) -> None:
    response = await ingress[1].get(path)
    assert (response.status_code, response.json()["error"]["param"]) == (400, field), response.text


async def test_settings_change_and_show(ingress: Double, directory: Directory) -> None:
    _, client = ingress
    changed = await client.patch(f"{QUEUES}/chat", json={"paused": True, "concurrency": 3, "result_retention_s": 60})
    shown = changed.json()
    assert (shown["paused"], shown["concurrency"], shown["result_retention_s"]) == (True, 3, 60)
    back = (await client.patch(f"{QUEUES}/chat", json={"concurrency": 0, "result_retention_s": 0})).json()
    assert (back["paused"], back["concurrency"], back["result_retention_s"]) == (True, None, None)
    assert (await client.patch(f"{QUEUES}/chat", json={"max_waiting": 9})).json()["max_waiting"] == 9
    assert (await client.patch(f"{QUEUES}/chat", json={"max_waiting": 0})).json()["max_waiting"] is None
    made = await client.post(QUEUES, json={"name": "narrow", "width": 2, "paused": False})
    assert (made.status_code, made.json()["width"], made.json()["registered_by"]) == (201, 2, "name")
    assert (await client.patch(f"{QUEUES}/narrow", json={"width": 3})).json()["width"] == 3
    refused = await client.patch(f"{QUEUES}/narrow", json={"width": 2})
    assert "spreads over 3 partitions now" in refused.text
    assert (await client.patch(f"{QUEUES}/narrow", json={"width": 0})).json()["width"] == 0
    assert len(directory.all()) == 4
    for path in (f"{QUEUES}/nothing", f"{QUEUES}/%2e%2e"):
        assert (await client.patch(path, json={"paused": True})).status_code == 404


async def test_queues_come_in_pages(ingress: Double, directory: Directory) -> None:
    assert directory.all()
    ingress[0].replace(queues=Directory(ingress[0], "batch", "chat", "zoo"))
    first = (await ingress[1].get(QUEUES, params={"limit": 2})).json()
    assert ([one["name"] for one in first["data"]], first["next_cursor"]) == (["batch", "chat"], "chat")
    rest = (await ingress[1].get(QUEUES, params={"limit": 2, "after": "chat"})).json()
    assert ([one["name"] for one in rest["data"]], rest["has_more"]) == (["zoo"], False)


@pytest.mark.usefixtures("directory")
async def test_a_purge_tells_each_partition_how_far_it_goes(ingress: Double) -> None:
    memory, client = ingress
    accepted = str((await client.post(PUT, json=BODY)).json()["data"])
    task = TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")
    memory.rows[accepted.encode()] = row_of(task, 0)
    told = await client.post(f"{QUEUES}/chat/purge", json={"level": 0, "wait_s": 0})
    assert (told.status_code, told.json()) == (
        202,
        {"object": "purge", "queue": "chat", "purged": 0, "left": 1, "done": False},
    )
    [record] = memory.written(topics.events(0))
    event = EVENT.decode(record.value or b"")
    assert (event["kind"], event["id"], event["queue"]) == ("purge", "", "chat")
    bounds = decode_bounds(event["data"])
    assert bounds is not None
    assert (bounds.tasks_end, bounds.after) == (1, "")
    ended = {"state": "cancelled", "finished_ms": 1, "error_code": "cancelled", "error_message": "purged"}
    memory.rows[accepted.encode()] = row_of(task, 0, **ended)
    nothing = await client.post(f"{QUEUES}/chat/purge", json={"wait_s": 5})
    assert (nothing.status_code, nothing.json()["purged"], nothing.json()["done"]) == (200, 0, True)


@pytest.mark.usefixtures("directory")
async def test_a_stream_that_is_requeued_streams_to_nobody(ingress: Double) -> None:
    memory, client = ingress
    first = str((await client.post(PUT, json=BODY)).json()["data"])
    [(tp, records)] = [(tp, found) for tp, found in memory.log.items() if tp.topic.endswith(topics.tasks(0))]
    data = b'{"model":"m","seed":123456789012345678901234567890,"stream":true,"stream_options":{}}'
    task: Any = {**TASK.decode(records[0].value or b""), "mode": "streaming", "data": data}
    memory.log[tp] = [records[0]._replace(value=TASK.encode(task))]
    memory.rows[first.encode()] = row_of(task, 0, state="completed", finished_ms=5)
    answered = await client.post(f"/v1/admin/tasks/{first}/requeue")
    assert answered.status_code == 202, answered.text
    again = TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")
    assert again["mode"] == "callback"
    assert again["data"] == b'{"model":"m","seed":123456789012345678901234567890,"stream":false}'


@pytest.mark.usefixtures("directory")
async def test_requeue_makes_a_task_of_its_own(ingress: Double) -> None:
    memory, client = ingress
    body = {**BODY, "callback_url": "http://127.0.0.1:9000/done", "trace_id": "t"}
    first = str((await client.post(PUT, json=body)).json()["data"])
    task = TASK.decode(memory.written(topics.tasks(0))[-1].value or b"")
    for state, status in (("queued", 400), ("completed", 202), ("expired", 202)):
        memory.rows[first.encode()] = row_of(task, 0, state=state, finished_ms=5)
        answered = await client.post(f"/v1/admin/tasks/{first}/requeue", json={"callback": state == "expired"})
        assert answered.status_code == status, answered.text
    silent, loud = (TASK.decode(record.value or b"") for record in memory.written(topics.tasks(0))[1:])
    assert (silent["replay_of"], silent["data"], silent["owner"]) == (first, task["data"], task["owner"])
    assert silent["id"] != first
    assert (silent["callback_url"], loud["callback_url"]) == (None, "http://127.0.0.1:9000/done")
    memory.rows[first.encode()] = row_of(task, 99, state="completed", finished_ms=5)
    gone = await client.post(f"/v1/admin/tasks/{first}/requeue")
    assert gone.status_code == 410
