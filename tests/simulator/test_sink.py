"""The callback receiver: what it records, and how it is told to refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from bench.simulator.behaviour import UnknownBehaviourError
from bench.sink import Sink


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A sink inside the test's own loop."""
    async with Sink() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A sender of callbacks."""
    async with httpx.AsyncClient(timeout=60.0) as running:
        yield running


def callback(task_id: str) -> dict[str, object]:
    """Make the body of a callback."""
    return {"status_code": 200, "request_id": task_id, "body": {"n": 1}}


async def test_deliveries_are_recorded_by_task(sink: Sink, client: httpx.AsyncClient) -> None:
    for task_id in ("TASK-1", "TASK-2", "TASK-1"):
        response = await client.post(sink.url, json=callback(task_id), headers={"webhook-id": "msg_1"})
        assert response.status_code == 200
    assert {key: len(found) for key, found in sink.received.items()} == {"TASK-1": 2, "TASK-2": 1}
    assert sink.doubled == {"TASK-1": 2}
    delivery = sink.received["TASK-2"][0]
    assert delivery.json() == callback("TASK-2")
    assert (delivery.status, delivery.target, delivery.headers["webhook-id"]) == (200, "/callback", "msg_1")
    assert sink.stats.completed == 3


async def test_it_refuses_first(sink: Sink, client: httpx.AsyncClient) -> None:
    url = sink.url_for(status=429, fail_times=2, retry_after=1)
    responses = [await client.post(url, json=callback("TASK-1")) for _ in range(3)]
    assert [response.status_code for response in responses] == [429, 429, 200]
    assert responses[0].headers["retry-after"] == "1"
    assert [delivery.status for delivery in sink.received["TASK-1"]] == [429, 429, 200]
    assert sink.doubled == {}


async def test_it_hangs_and_redirects(sink: Sink, client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await client.post(sink.url_for(fault="hang"), json=callback("TASK-1"), timeout=httpx.Timeout(60, read=0.1))
    await sink.until(lambda: sink.stats.disconnects == 1)
    elsewhere = await client.post(sink.url_for(fault="redirect", location="http://10.0.0.1/"), json=callback("TASK-1"))
    assert (elsewhere.status_code, elsewhere.headers["location"]) == (307, "http://10.0.0.1/")
    assert [delivery.status for delivery in sink.received["TASK-1"]] == [None, 307]


async def test_a_huge_reply(sink: Sink, client: httpx.AsyncClient) -> None:
    assert len((await client.post(sink.url_for(size=1_000_000), json=callback("TASK-1"))).content) == 1_000_000


async def test_unknown_behaviours_are_refused(sink: Sink, client: httpx.AsyncClient) -> None:
    with pytest.raises(UnknownBehaviourError, match="nonesuch"):
        sink.url_for(nonesuch=1)
    assert (await client.post(f"{sink.url}?nonesuch=1", json={})).status_code == 400
    assert (await client.post(f"{sink.root}/elsewhere", json={})).status_code == 404


@pytest.mark.parametrize(
    ("headers", "content", "expected"),
    [
        ({"x-task-id": "t"}, b"{}", "t"),
        ({"webhook-id": "m"}, b'{"id":"evt_1"}', "m"),
        ({}, b'{"id":"evt_1"}', "evt_1"),
        ({}, b"not json", ""),
        ({}, b"[]", ""),
    ],
)
async def test_where_the_id_comes_from(
    sink: Sink, client: httpx.AsyncClient, headers: dict[str, str], content: bytes, expected: str
) -> None:
    await client.post(sink.url, content=content, headers=headers)
    assert list(sink.received) == [expected]


async def test_it_is_read_from_another_process(sink: Sink, client: httpx.AsyncClient) -> None:
    await client.post(sink.url, json=callback("TASK-1"))
    assert (await client.get(f"{sink.root}/sim/received")).json() == {"TASK-1": 1}
    detail = (await client.get(f"{sink.root}/sim/received", params={"id": "TASK-1"})).json()
    assert detail[0]["status"] == 200
    assert '"request_id"' in detail[0]["body"]
    assert (await client.get(f"{sink.root}/sim/stats")).json()["arrivals"] == 1
    await client.post(f"{sink.root}/sim/reset")
    assert sink.received == {}
    await client.post(f"{sink.root}/sim/default", json={"status": 503})
    assert (await client.post(sink.url, json=callback("TASK-1"))).status_code == 503
