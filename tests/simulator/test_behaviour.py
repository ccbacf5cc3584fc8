"""What a request may ask for: waiting, statuses, failing first, sizes, and the names that mean the same."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from bench.simulator import Behaviour, Fault, Simulator, text_for
from bench.simulator.behaviour import of_model

PATH = "/v1/chat/completions"
CHAT = {"model": "any", "messages": [{"role": "user", "content": "a"}]}


async def ask(client: httpx.AsyncClient, **sim: object) -> httpx.Response:
    """Post a chat request that asks for this behaviour."""
    return await client.post(PATH, json={**CHAT, "sim": sim})


async def test_latency_and_token_time_delay_a_plain_answer(client: httpx.AsyncClient) -> None:
    started = time.monotonic()
    response = await ask(client, latency_ms=60, tokens=4, token_ms=20)
    assert time.monotonic() - started >= 0.135
    assert response.json()["choices"][0]["message"]["content"] == text_for(CHAT["messages"], 4)


async def test_tokens_arrive_one_by_one(client: httpx.AsyncClient) -> None:
    body = {**CHAT, "stream": True, "sim": {"tokens": 4, "token_ms": 30}}
    async with client.stream("POST", PATH, json=body) as response:
        times = [time.monotonic() async for line in response.aiter_lines() if line]
    assert len(times) == 7  # role, four words, the end, [DONE]
    assert times[-1] - times[0] >= 0.15


async def test_status_comes_with_an_error_body_and_retry_after(client: httpx.AsyncClient) -> None:
    limited = await ask(client, status=429, retry_after=1.5)
    assert limited.status_code == 429
    assert limited.headers["retry-after"] == "1.5"
    assert limited.json()["error"]["code"] == "rate_limit_exceeded"
    dated = await ask(client, status=503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")
    assert dated.headers["retry-after"].startswith("Wed")
    assert (await ask(client, status=500)).json()["error"]["type"] == "server_error"
    assert (await ask(client, status=201)).json()["object"] == "chat.completion"
    assert (await ask(client, status=204)).content == b""


async def test_the_first_arrivals_of_a_key_fail(client: httpx.AsyncClient) -> None:
    first = [(await ask(client, key="one", fail_times=2)).status_code for _ in range(3)]
    other = (await ask(client, key="two", fail_times=1, status=429)).status_code
    assert first == [503, 503, 200]
    assert other == 429


async def test_the_key_may_come_from_the_task_id_or_from_the_body(client: httpx.AsyncClient, sim: Simulator) -> None:
    for _ in range(2):
        await client.post(PATH, json={**CHAT, "sim": {"fail_times": 1}}, headers={"x-task-id": "TASK-1"})
    assert sim.stats.keys["TASK-1"].arrivals == 2
    without = [(await ask(client, fail_times=1)).status_code for _ in range(2)]
    assert without == [503, 200]


async def test_a_fault_may_be_what_fails_first(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.TransportError):
        await ask(client, key="k", fail_times=1, fault="reset")
    assert (await ask(client, key="k", fail_times=1, fault="reset")).status_code == 200


@pytest.mark.parametrize("size", [100, 1000, 300_000, 5_000_000])
async def test_size_is_exact_when_larger_than_the_bare_answer(client: httpx.AsyncClient, size: int) -> None:
    response = await ask(client, size=size)
    bare = len((await ask(client)).content)
    assert len(response.content) == max(size, bare)
    assert response.json()["choices"][0]["message"]["content"] == text_for(CHAT["messages"])


async def test_size_of_a_stream_is_shared_by_its_frames(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={**CHAT, "stream": True, "sim": {"size": 100_000}})
    frames = response.text.split("\n\n")[:-2]
    assert {len(frame) + 2 for frame in frames} == {10_000}
    assert all(json.loads(frame.removeprefix("data: "))["padding"] for frame in frames)


async def test_the_default_applies_to_requests_that_ask_for_nothing(client: httpx.AsyncClient, sim: Simulator) -> None:
    assert (await client.post("/sim/default", json={"status": 503})).json()["status"] == 503
    assert (await client.post(PATH, json=CHAT)).status_code == 503
    assert (await client.post(PATH, json={**CHAT, "model": "sim-instant"})).status_code == 200
    assert (await client.post("/sim/default", json={"nonesuch": 1})).status_code == 400
    sim.default = Behaviour()
    assert (await client.post(PATH, json=CHAT)).status_code == 200


async def test_a_form_may_ask_too(client: httpx.AsyncClient) -> None:
    form = {"model": "any", "sim": json.dumps({"status": 418})}
    response = await client.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", b"\xff")})
    assert response.status_code == 418


async def test_a_model_name_may_ask(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={**CHAT, "model": "sim-latency-1-status-503"})
    assert response.status_code == 503


def test_model_names() -> None:
    assert of_model("smollm2") is None
    assert of_model("sim-instant") == Behaviour()
    assert of_model("sim-reset-after-headers") == Behaviour(fault=Fault.RESET_AFTER_HEADERS)
    assert of_model("sim-tokens-3-token-20") == Behaviour(tokens=3, token_ms=20)
    assert of_model("sim-status-429-fail-2") == Behaviour(status=429, fail_times=2)
