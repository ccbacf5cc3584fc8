"""Bodies as the stock OpenAI SDK makes them go through put, and the SDK's own types read what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from bench.simulator import Simulator
from tests.support.stack import KEY, Stack, call_of

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def recorded(call: Callable[[openai.OpenAI], object]) -> tuple[str, dict[str, Any]]:
    """Return path and body of the request that the SDK would send."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(400, json={"error": {"message": "recorded", "type": "x", "param": None, "code": None}})

    client = openai.OpenAI(
        api_key="none",
        base_url="http://recorder/v1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    )
    with pytest.raises(openai.BadRequestError):
        call(client)
    return sent[0].url.path, json.loads(sent[0].content)


CALLS: dict[str, tuple[Callable[[openai.OpenAI], object], type[BaseModel]]] = {
    "chat": (
        lambda client: client.chat.completions.create(
            model="gpt",
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hallo Welt ✓"}],
        ),
        ChatCompletion,
    ),
    "chat with every trimming": (
        lambda client: client.chat.completions.create(
            model="gpt",
            messages=[{"role": "user", "content": [{"type": "text", "text": "what is it?"}, PICTURE]}],  # type: ignore[list-item,misc]
            tools=[TOOL],  # type: ignore[list-item]
            tool_choice="auto",
            temperature=0.2,
            top_p=0.9,
            n=1,
            seed=7,
            stop=["\n"],
            logit_bias={"50256": -100},
            response_format={"type": "json_object"},
            metadata={"who": "test"},
            extra_body={"reasoning_effort": "low", "vendor": {"deep": [1, None, True]}},
        ),
        ChatCompletion,
    ),
    "completion": (lambda client: client.completions.create(model="gpt", prompt="Once", max_tokens=5), Completion),
    "embeddings": (
        lambda client: client.embeddings.create(model="emb", input=["a", "b"], encoding_format="float"),
        CreateEmbeddingResponse,
    ),
    "image": (
        lambda client: client.images.generate(model="img", prompt="a mill", n=2, response_format="b64_json"),
        ImagesResponse,
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_body_of_the_sdk_comes_back_as_its_type(whole: Stack, simulator: Simulator, name: str) -> None:
    call, kind = CALLS[name]
    path, body = recorded(call)
    put = {"queue": "api", "endpoint": path, "response_mode": "blocking", "data": body}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        async with session.post(f"{whole.url}/v1/queue/put", json=put) as answer:
            assert answer.status == 200, await answer.text()
            through, sent = await answer.read(), call_of(simulator, answer.headers["x-task-id"])
        async with session.post(f"{simulator.root}{path}", json=body) as direct:
            assert through == await direct.read()
    kind.model_validate_json(through)
    assert json.loads(sent.body) == body
    assert sent.path == path


async def test_a_stream_comes_back_as_the_chunks_of_the_sdk(whole: Stack) -> None:
    path, body = recorded(
        lambda client: client.chat.completions.create(
            model="gpt",
            messages=[{"role": "user", "content": "count"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    put = {"queue": "api", "endpoint": path, "response_mode": "streaming", "data": body}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{whole.url}/v1/queue/put", json=put) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        frames = [
            frame.removeprefix("data: ") for frame in (await answer.text()).split("\n") if frame.startswith("data: ")
        ]
    assert frames.pop() == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(frame) for frame in frames]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert '"reasoning_content"' in frames[0]
    assert '"logprobs":null' in frames[0]


async def test_an_error_of_the_upstream_keeps_its_status_and_body(whole: Stack) -> None:
    body = {"model": "gpt", "messages": "not a list"}
    put = {"queue": "api", "endpoint": "/v1/chat/completions", "response_mode": "blocking", "data": body}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{whole.url}/v1/queue/put", json=put) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "messages"
