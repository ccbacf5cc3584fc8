"""Right answers: the shapes that the stock client reads, and equal bytes for equal requests."""

from __future__ import annotations

import json

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError

from bench.simulator import Simulator, text_for

MESSAGES = [{"role": "user", "content": "How deep is the race?"}]
CHAT = {"model": "any", "messages": MESSAGES}


def frames(response: httpx.Response) -> list[str]:
    """Split a stream's body into the data of its frames."""
    parts = response.text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [part.removeprefix("data: ") for part in parts]


async def test_chat_is_a_function_of_the_request(client: httpx.AsyncClient) -> None:
    first, second = [await client.post("/v1/chat/completions", json=CHAT) for _ in range(2)]
    other = await client.post("/v1/chat/completions", json={**CHAT, "messages": []})
    assert first.status_code == 200
    assert first.content == second.content != other.content
    message = first.json()["choices"][0]["message"]
    assert message["content"] == text_for(MESSAGES)
    assert message["tool_calls"] == []
    assert message["reasoning_content"]
    assert first.json()["choices"][0]["logprobs"] is None
    assert first.json()["usage"]["completion_tokens"] == 8


async def test_stream_carries_the_plain_answer_and_its_usage(client: httpx.AsyncClient) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "sim": {"tokens": 5}}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream"
    *chunks, done = frames(response)
    assert done == "[DONE]"
    *events, last = map(json.loads, chunks)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == text_for(MESSAGES, 5)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 6 + ["stop"]
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5


async def test_stream_without_usage_says_nothing_of_it(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert "usage" not in response.text


async def test_members_can_be_put_into_the_message(client: httpx.AsyncClient) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "open_gate", "arguments": "{}"}}
    body = {**CHAT, "sim": {"message": {"tool_calls": [call], "mood": "calm"}}}
    plain = (await client.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]
    first = json.loads(frames(await client.post("/v1/chat/completions", json={**body, "stream": True}))[0])
    for message in (plain, first["choices"][0]["delta"]):
        assert message["tool_calls"] == [call]
        assert message["mood"] == "calm"


async def test_the_stock_client_reads_every_endpoint(sim: Simulator) -> None:
    async with AsyncOpenAI(base_url=sim.url, api_key="any", max_retries=0) as api:
        assert "sim-instant" in [model.id async for model in api.models.list()]
        assert (await api.models.retrieve("sim-slow")).id == "sim-slow"
        chat = await api.chat.completions.create(model="any", messages=[{"role": "user", "content": "a"}])
        assert chat.choices[0].message.content == text_for([{"role": "user", "content": "a"}])
        assert (await api.completions.create(model="any", prompt="a")).choices[0].text == text_for("a")
        stream = await api.completions.create(model="any", prompt="a", stream=True)
        assert "".join([part.choices[0].text async for part in stream]) == text_for("a")
        vectors = await api.embeddings.create(model="any", input=["a", "b", "a"], dimensions=4)
        floats = await api.embeddings.create(model="any", input="a", dimensions=4, encoding_format="float")
        assert vectors.data[0].embedding == vectors.data[2].embedding != vectors.data[1].embedding
        assert floats.data[0].embedding == vectors.data[0].embedding
        assert len(floats.data[0].embedding) == 4
        spoken = await api.audio.speech.create(model="any", voice="alloy", input="a")
        assert spoken.content.startswith(b"RIFF")
        pictures = await api.images.generate(model="any", prompt="a", n=2)
        assert pictures.data is not None
        assert len(pictures.data) == 2
        edited = await api.images.edit(model="any", prompt="a", image=("a.png", b"\x89PNG"))
        assert edited.data is not None
        assert edited.data[0].b64_json


async def test_the_stock_client_reads_transcriptions(sim: Simulator) -> None:
    sound = ("a.wav", b"RIFF\xff\x00")
    async with AsyncOpenAI(base_url=sim.url, api_key="any", max_retries=0) as api:
        plain = await api.audio.transcriptions.create(model="any", file=sound)
        again = await api.audio.transcriptions.create(model="any", file=sound, response_format="text")
        full = await api.audio.transcriptions.create(model="any", file=sound, response_format="verbose_json")
        assert again.strip() == plain.text == full.text
        stream = await api.audio.transcriptions.create(model="any", file=sound, stream=True)
        events = [event async for event in stream]
        assert events[-1].type == "transcript.text.done"
        with pytest.warns(DeprecationWarning, match="deprecated"):
            translated = await api.audio.translations.create(model="any", file=sound)
        assert translated.text == plain.text


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/chat/completions", {"model": "any"}, 400, "messages"),
        ("/v1/chat/completions", [], 400, "body"),
        ("/v1/completions", {"prompt": 3}, 400, "prompt"),
        ("/v1/embeddings", {"input": []}, 400, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, 400, "dimensions"),
        ("/v1/audio/speech", {}, 400, "input"),
        ("/v1/images/generations", {"n": 11}, 400, "n"),
        ("/v1/chat/completions", {**CHAT, "model": "sim-nonesuch"}, 404, "model"),
        ("/v1/chat/completions", {**CHAT, "sim": {"latency": 3}}, 400, "sim.latency"),
        ("/v1/chat/completions", {**CHAT, "sim": {"status": 99}}, 400, "sim.status"),
        ("/v1/nonesuch", {}, 404, None),
    ],
)
async def test_wrong_requests_are_told_what_is_wrong(
    client: httpx.AsyncClient, path: str, body: object, status: int, param: str | None
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}


async def test_other_wrong_requests(client: httpx.AsyncClient, sim: Simulator) -> None:
    assert (await client.post("/v1/embeddings", content=b"{")).status_code == 400
    assert (await client.get("/v1/embeddings")).status_code == 405
    async with AsyncOpenAI(base_url=sim.url, api_key="any", max_retries=0) as api:
        with pytest.raises(NotFoundError):
            await api.models.retrieve("nonesuch")
