"""Idempotency-Key over three ingress processes, a real scheduler and a dispatcher: duplicates are one task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.site import Answer, Client, Site
from tests.support.waiting import eventually_async

INGRESSES = 3


@pytest.fixture(scope="module")
async def client(site: Site) -> AsyncIterator[Client]:
    async with site.more("ingress-2"):
        yield Client(site, "idempotency")


async def put(client: Client, key: str, *, at: int, **given: object) -> Answer:
    return await client.put(at=at, headers={"Idempotency-Key": key}, key=key, **given)


async def succeeded(client: Client, task_id: str) -> None:
    assert (await client.ended(task_id))["status"] == "succeeded"


async def test_a_thousand_duplicates_over_three_ingresses_are_one_task(site: Site, client: Client) -> None:
    answers = await asyncio.gather(*(put(client, "thousand", at=n % INGRESSES, latency_ms=200) for n in range(1000)))
    assert {answer.status for answer in answers} == {200}
    assert len({(answer.json["data"], answer.task_id) for answer in answers}) == 1
    await succeeded(client, answers[0].task_id)
    assert site.arrivals("thousand") == 1


async def test_blocking_duplicates_get_the_answer_of_the_first(site: Site, client: Client) -> None:
    sim = {"mode": "blocking", "latency_ms": 500}
    answers = await asyncio.gather(*(put(client, "blocking", at=n % INGRESSES, **sim) for n in range(60)))
    later = await put(client, "blocking", at=0, **sim)
    posted = await put(client, "blocking", at=1, latency_ms=500)
    assert set(answers) == {later}
    assert (later.status, posted.json["data"]) == (200, later.task_id)
    assert site.arrivals("blocking") == 1


async def test_streaming_duplicates_get_the_text_of_the_first(site: Site, client: Client) -> None:
    sim = {"mode": "streaming", "tokens": 8, "token_ms": 30}
    answers = await asyncio.gather(*(put(client, "stream", at=n % INGRESSES, **sim) for n in range(6)))
    answers.append(await put(client, "stream", at=1, **sim))
    assert all(one.frames == answers[0].frames and one.frames[-1] == b"[DONE]" for one in answers)
    assert len({answer.task_id for answer in answers}) == 1
    assert site.arrivals("stream") == 1


async def test_another_body_is_refused_and_is_no_task(site: Site, client: Client) -> None:
    first = (await put(client, "other", at=0)).task_id
    for mode in ("callback", "blocking", "streaming"):
        answer = await put(client, "other", at=1, mode=mode, text="something else")
        envelope = answer.json
        assert (answer.status, envelope["code"], envelope["field"]) == (422, 422, "Idempotency-Key")
        assert first in envelope["message"]
    await succeeded(client, first)
    assert site.arrivals("other") == 1


async def test_a_client_with_a_key_may_leave_and_come_again(site: Site, client: Client) -> None:
    sim = {"mode": "blocking", "latency_ms": 1_500}
    leaving = asyncio.create_task(put(client, "leave", at=0, **sim))
    await eventually_async(lambda: site.arrivals("leave"), what="the call")
    leaving.cancel()
    answer = await put(client, "leave", at=1, **sim)
    assert (answer.status, "choices" in answer.json) == (200, True)
    assert site.arrivals("leave") == 1
