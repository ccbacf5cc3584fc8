"""Some of the fuzz's requests against the whole stack: its real server, a real broker, a model server."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.simulator import Simulator
from tests.support.bella import BODY, PUT
from tests.support.openapi_operations import Operation, operations
from tests.support.openapi_requests import as_described, requests_of
from tests.support.stack import KEY, Stack

EXAMPLES = 4
HANGS_S = 60
LEFT_OUT = {"/v1/queue/register", "/v1/queue/take", "/v1/queue/{task_id}/complete"}
"""They give queues to pull workers, of whom there is none here: the calls of the other routes would wait for one."""


@pytest.fixture(scope="module")
async def client(whole: Stack, simulator: Simulator) -> httpx.Client:
    return httpx.Client(base_url=whole.url, headers={"authorization": f"Bearer {KEY}"}, timeout=HANGS_S)


@pytest.fixture(scope="module")
async def task_id(client: httpx.Client) -> str:
    """Give a task that has ended."""
    body = BODY | {"response_mode": "blocking"}
    answered = await asyncio.to_thread(client.post, PUT, json=body)
    assert answered.status_code == 200
    return str(answered.headers["x-task-id"])


# While one thread draws, the loop of another may ask `random` for a back-off: no fault of the strategies.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize("operation", [one for one in operations() if one.path not in LEFT_OUT], ids=str)
async def test_no_request_is_answered_with_a_fault(client: httpx.Client, task_id: str, operation: Operation) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def fuzz(data: st.DataObject) -> None:
        sent = data.draw(requests_of(operation, task_ids=[task_id]))
        response = client.send(sent.request(client, operation.method))
        assert response.status_code != 500, response.text
        as_described(operation, sent, response)

    # In a thread, for the model server answers from this loop.
    await asyncio.to_thread(fuzz)
    assert (await asyncio.to_thread(client.get, "/livez")).status_code == 200
