"""Requests made from the OpenAPI document, right ones and broken ones: none is answered with a 5xx, each as described.

HEADRACE_TEST_FUZZ_EXAMPLES=500 looks longer than the suite does, and with a new seed each time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from core.kafka.producer import Record
from core.queues import UNCHANGED, QueueChanges
from core.settings.models import IngressSettings, QueueSettings, Settings
from ingress.api.files.models import FILE_ID
from ingress.submission.model_catalog import ModelCatalog
from schemas import topics
from schemas.codec import FILE, TASK
from schemas.partitioning import queue_number
from schemas.records import TERMINAL
from tests.support.bella import BODY, PUT, row_of
from tests.support.memory_ingress import Memory, ingress_in_memory
from tests.support.openapi_operations import Operation, operations
from tests.support.openapi_requests import Sent, as_described, requests_of, with_each_member_wrong
from tests.support.results import result_of

EXAMPLES = int(os.environ.get("HEADRACE_TEST_FUZZ_EXAMPLES", "0"))
USUAL_EXAMPLES = 60
HANGS_S = 60


MODELS = ("smollm2", "bge-m3", "whisper", "whisper-large-v3", "flux", "sdxl", "dall-e-3")
"""Those of the document's examples."""


class Queues:
    """Takes every registration and knows no queue: what a worker takes from one is tested against the real broker."""

    def get(self, _: str) -> None:
        """Find nothing."""

    def all(self) -> list[Any]:
        """List none."""
        return []

    async def register(self, _: Any, name: str, *, changes: QueueChanges = UNCHANGED, **fields: Any) -> Any:
        """Register a queue."""
        queue: Any = {
            "name": name,
            "number": queue_number(name),
            "created_ms": 0,
            "width": 0,
            "work_partitions": 4,
            "paused": False,
            "concurrency": None,
            "retention_ms": None,
            "max_waiting": None,
            **fields,
        }
        return changes.applied(queue)


class Ingress:
    """One ingress in memory, with some tasks, driven from outside an event loop."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        limits = IngressSettings(max_body_bytes=100_000, blocking_timeout_s=0.05)
        queues = {"default": QueueSettings(model="smollm2")}
        self._double = ingress_in_memory(Settings(data_dir=folder, ingress=limits, queues=queues))
        self.memory: Memory
        self.client: httpx.AsyncClient
        self.memory, self.client = self._runner.run(self._double.__aenter__())
        self._furnish()
        self._runner.run(self._file())
        self.tasks = [
            self._runner.run(self._task(changes))
            for changes in ({}, {"state": "processing"}, {"state": "completed", "finished_ms": 5, "status_code": 200})
        ]

    def _furnish(self) -> None:
        """Stand in for what Kafka, the scheduler and the upstreams do."""
        memory = self.memory
        listed = {"object": "list", "data": [{"id": model, "object": "model"} for model in MODELS]}
        models = httpx.MockTransport(lambda _: httpx.Response(200, json=listed))
        memory.ingress.model_catalog = ModelCatalog(memory.settings, transport=models)
        memory.replace(queues=Queues())
        memory.answer = lambda task: [result_of(task["id"])]
        memory.schedules = True
        write = memory.send

        async def send(topic: str, partition: int, record: Record) -> int:
            offset = await write(topic, partition, record)
            if ".tasks." in topic:  # each task has its row at once
                memory.rows[record.key or b""] = row_of(TASK.decode(record.value or b""), offset)
            return offset

        memory.send = send  # type: ignore[method-assign]

        async def wait_until_ended(key: bytes, *, seconds: float) -> bool:
            return key in memory.rows and memory.rows[key]["state"] in TERMINAL

        memory.wait_until_ended = wait_until_ended  # type: ignore[method-assign]

    async def _file(self) -> None:
        """Upload the file that the examples of a batch name."""
        made = (await self.client.post("/v1/files", files={"file": ("a", b"{}")}, data={"purpose": "batch"})).json()
        [record] = self.memory.written(topics.FILES)
        example = Record(FILE_ID.encode(), FILE.encode({**FILE.decode(record.value or b""), "id": FILE_ID}))
        assert made["id"].encode() == record.key
        await self.memory.send(self.memory.settings.topic(topics.FILES), 0, example)

    async def _task(self, changes: dict[str, Any]) -> str:
        task_id = str((await self.client.post(PUT, json=BODY)).json()["data"])
        record = self.memory.written(topics.tasks(0))[-1]
        self.memory.rows[task_id.encode()] = row_of(TASK.decode(record.value or b""), 0, **changes)
        return task_id

    def send(self, operation: Operation, sent: Sent) -> httpx.Response:
        """Send a request; one that hangs fails the test."""

        async def sending() -> httpx.Response:
            async with asyncio.timeout(HANGS_S):
                return await self.client.send(sent.request(self.client, operation.method))

        return self._runner.run(sending())

    def forget(self) -> None:
        """Forget the tasks of other tests: to list thousands of them takes longer than everything else."""
        for name in self.memory.rows.keys() - {task_id.encode() for task_id in self.tasks}:
            del self.memory.rows[name]

    def close(self) -> None:
        """Close it."""
        self._runner.run(self._double.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    made = Ingress(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


@pytest.fixture
def ingress(running: Ingress) -> Ingress:
    running.forget()
    return running


@pytest.mark.parametrize("operation", list(operations()), ids=str)
def test_no_request_is_answered_with_a_fault(ingress: Ingress, operation: Operation) -> None:
    @settings(
        max_examples=EXAMPLES or USUAL_EXAMPLES,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def fuzz(data: st.DataObject) -> None:
        # A task that has not ended is followed for as long as it lasts.
        tasks = ingress.tasks[-1:] if operation.path.endswith("/events") else ingress.tasks
        sent = data.draw(requests_of(operation, task_ids=tasks))
        check(ingress, operation, sent)

    fuzz()


@pytest.mark.parametrize("operation", [one for one in operations() if one.json_examples], ids=str)
def test_no_member_of_another_kind_is_answered_with_a_fault(ingress: Ingress, operation: Operation) -> None:
    sent = {json.dumps(body) for value in operation.json_examples for body in with_each_member_wrong(value)}
    for text in sorted(sent):
        check(ingress, operation, Sent(operation.url(ingress.tasks[0]), False, {}, {}, {"content": text.encode()}))


def check(ingress: Ingress, operation: Operation, sent: Sent) -> None:
    """Send a request and look at its answer."""
    response = ingress.send(operation, sent)
    # Nobody works here, and to say so is no fault; nor is that a wait was too short for a slow machine.
    said = operation.path == "/readyz" or (response.status_code == 504 and "wait_exceeded" in response.text)
    assert response.status_code < 500 or said, (sent, response.text)
    as_described(operation, sent, response)
