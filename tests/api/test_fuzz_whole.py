"""Some of the fuzz's requests against the whole stack: its real server, a real broker, a model server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.bella import BODY, PUT
from tests.support.openapi_operations import Operation, operations
from tests.support.openapi_requests import Sent, as_described, requests_of
from tests.support.stack import KEY, Stack

EXAMPLES = 4
HANGS_S = 150
"""Longer than the 60 s that the document's example of a blocking call asks for."""
LEFT_OUT = {"/v1/queue/register", "/v1/queue/take", "/v1/queue/{task_id}/complete"}
"""They give queues to pull workers, of whom there is none here: the calls of the other routes would wait for one."""


@pytest.fixture(scope="module")
async def client(whole: Stack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=whole.url, headers=headers, timeout=HANGS_S) as made:
        yield made


@pytest.fixture(scope="module")
async def task_id(client: httpx.AsyncClient) -> str:
    """Give a task that has ended."""
    body = BODY | {"response_mode": "blocking"}
    answered = await client.post(PUT, json=body)
    assert answered.status_code == 200
    return str(answered.headers["x-task-id"])


def drawn(operation: Operation, task_id: str) -> list[Sent]:
    """Draw some requests, always the same ones."""
    found: list[Sent] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def draw(data: st.DataObject) -> None:
        found.append(data.draw(requests_of(operation, task_ids=[task_id])))

    draw()
    return found


@pytest.mark.parametrize("operation", [one for one in operations() if one.path not in LEFT_OUT], ids=str)
async def test_no_request_is_answered_with_a_fault(
    client: httpx.AsyncClient, task_id: str, operation: Operation
) -> None:
    async def check(sent: Sent) -> None:
        response = await client.send(sent.request(client, operation.method))
        assert response.status_code != 500, (sent, response.text)
        as_described(operation, sent, response)

    async with asyncio.TaskGroup() as group:  # at once: some operations take seconds by nature
        for sent in drawn(operation, task_id):
            group.create_task(check(sent))
    if operation.method == "PATCH":  # or the calls of a queue that it has paused would wait
        await client.patch("/v1/admin/queues/chat", json={"paused": False})
    assert (await client.get("/livez")).status_code == 200
