"""Scenarios with the stock OpenAI SDK, whichever version is found, against the mirror.

Answers are held to the SDK's strict validation, but for two that it refuses of the API's own servers too: an embedding
in base64 and the null finish_reason of a streamed completion. sdk_main.py runs it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import openai

MODEL = "sim-instant"
ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hallo Welt ✓"}]
ENDED_S = 60
POLL_S = 0.1
SLOW = {"sim": {"tokens": 4, "token_ms": 300}}


def key_of(client: openai.OpenAI, scenario: str) -> str:
    """Name what the simulator counts, for the test to look at."""
    return f"{scenario} {openai.__version__} {client.base_url.path.strip('/')}"


def lenient(client: openai.OpenAI) -> openai.OpenAI:
    """Return the client without strict validation."""
    return openai.OpenAI(api_key=client.api_key, base_url=client.base_url)


def chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, temperature=0.1, max_tokens=256)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


def chat_with_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, extra_headers={"X-Headrace-Queue": "sdk", "X-Headrace-Timeout": "60"}
    )
    assert raw.headers["x-task-id"].startswith("TASK-")
    assert raw.headers["location"].startswith("/v1/tasks/task_")
    assert raw.parse().choices[0].message.role == "assistant"


def chat_streamed(client: openai.OpenAI) -> None:
    """Frames come further apart than keep-alives do."""
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}, extra_body=SLOW
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert len("".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]).split()) == 4


def chat_streamed_with_the_async_client(client: openai.OpenAI) -> None:
    async def ask() -> int:
        async with openai.AsyncOpenAI(
            api_key=client.api_key, base_url=client.base_url, _strict_response_validation=True
        ) as other:
            stream = await other.chat.completions.create(model=MODEL, messages=ASK, stream=True)
            return len([chunk async for chunk in stream])

    assert asyncio.run(ask()) == 10


def completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=5)
    assert answer.choices[0].text


def completion_streamed(client: openai.OpenAI) -> None:
    with lenient(client) as other:
        chunks = list(other.completions.create(model=MODEL, prompt="Once upon a time", stream=True, extra_body=SLOW))
    assert len("".join(chunk.choices[0].text for chunk in chunks).split()) == 4


def embeddings(client: openai.OpenAI) -> None:
    """Without a format the SDK asks for base64 and decodes it."""
    with lenient(client) as other:
        answers = [
            client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float"),
            other.embeddings.create(model=MODEL, input=["a", "b"]),
        ]
    for answer in answers:
        assert [len(one.embedding) for one in answer.data] == [16, 16]
        assert isinstance(answer.data[0].embedding[0], float)


def image(client: openai.OpenAI) -> None:
    answer = client.images.generate(model=MODEL, prompt="a mill", n=2)
    assert answer.data is not None
    assert all(one.b64_json for one in answer.data)
    assert len(answer.data) == 2


def image_streamed(client: openai.OpenAI) -> None:
    events = list(client.images.generate(model=MODEL, prompt="a mill", stream=True, partial_images=2))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]


def models(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed[MODEL].owned_by == "simulator"
    assert (listed[MODEL].model_extra or {})["queue"] == "default"
    assert client.models.retrieve("vendor/sim").id == "vendor/sim"


def unknown_model(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.models.retrieve("nonesuch"),
        lambda: client.chat.completions.create(model="nonesuch", messages=ASK),
    ):
        try:
            ask()
        except openai.NotFoundError as error:
            assert (error.code, error.param) == ("model_not_found", "model")  # noqa: PT017 - no pytest in this program
        else:
            raise AssertionError("an unknown model was found")


def refused_by_the_model_server(client: openai.OpenAI) -> None:
    for more in ({}, {"stream": True}):
        try:
            # A refusal that takes longer than ingress.keep_alive_s finds the stream begun, and comes in it.
            list(client.chat.completions.create(model=MODEL, messages="no list", **more))  # type: ignore[call-overload]
        except openai.BadRequestError as error:
            assert error.param == "messages"  # noqa: PT017
            assert error.response.headers["x-task-id"].startswith("TASK-")  # noqa: PT017
        except openai.APIError as error:
            assert more, error  # noqa: PT017
            assert error.param == "messages"  # noqa: PT017
        else:
            raise AssertionError("a wrong request was answered")


def broken_off_in_the_middle(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, extra_body={"sim": {"fault": "error_frame", "after": 2}}
    )
    try:
        list(stream)
    except openai.APIError as error:
        assert error.message  # noqa: PT017
    else:
        raise AssertionError("an error frame was taken for an end")


def wait_exceeded(client: openai.OpenAI) -> None:
    """The SDK makes two retries of a 504 by itself; the test counts what the model server gets.

    The answer takes so much longer than the wait that they are told apart on a machine that stands still for seconds.
    """
    try:
        client.chat.completions.create(
            model=MODEL,
            messages=ASK,
            extra_headers={"X-Headrace-Wait": "1"},
            extra_body={"sim": {"latency_ms": 8_000, "key": key_of(client, "wait_exceeded")}},
        )
    except openai.InternalServerError as error:
        assert (error.status_code, error.code) == (504, "wait_exceeded")  # noqa: PT017
        assert error.response.headers["x-task-id"] in error.message  # noqa: PT017
    else:
        raise AssertionError("the call was held for longer than it should")


def given_up(client: openai.OpenAI) -> None:
    """The test sees that the endless answer is closed."""
    asked = {"fault": "endless", "token_ms": 50, "key": key_of(client, "given_up")}
    stream = client.chat.completions.create(model=MODEL, messages=ASK, stream=True, extra_body={"sim": asked})
    next(iter(stream))
    stream.close()


def accepted(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=ASK,
        extra_body={"async": True, "sim": {"key": key_of(client, "accepted")}},
        extra_headers={"X-Headrace-Level": "1"},
    )
    body = json.loads(raw.text() if callable(raw.text) else raw.text)
    assert raw.http_response.status_code == 202
    assert raw.headers["location"] == f"/v1/tasks/{body['id']}"
    assert (body["status"], raw.headers["retry-after"]) == ("queued", "3")
    task = shown(client, raw.headers["location"])
    assert (task["status"], task["progress"]) == ("completed", 100)
    assert task["result"]["choices"][0]["message"]["content"]


def shown(client: openai.OpenAI, location: str) -> dict[str, Any]:
    """Look at a task until it has ended."""
    root = str(client.base_url).removesuffix(client.base_url.path)
    give_up = time.monotonic() + ENDED_S
    while True:
        answer = client.get(root + location, cast_to=object)
        assert isinstance(answer, dict)
        if answer["status"] not in ("queued", "processing"):
            return answer
        assert time.monotonic() < give_up, answer
        time.sleep(POLL_S)


def wrong_key(client: openai.OpenAI) -> None:
    try:
        client.with_options(api_key="no").models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"  # noqa: PT017
    else:
        raise AssertionError("a wrong key was taken")


SCENARIOS: Mapping[str, Callable[[openai.OpenAI], None]] = {
    one.__name__: one
    for one in (
        wait_exceeded,
        chat,
        chat_with_headers,
        chat_streamed,
        chat_streamed_with_the_async_client,
        completion,
        completion_streamed,
        embeddings,
        image,
        image_streamed,
        models,
        unknown_model,
        refused_by_the_model_server,
        broken_off_in_the_middle,
        given_up,
        accepted,
        wrong_key,
    )
}
"""The first makes a call that goes on for longest: it is over by the end of the others."""
PREFIXES = ("/queue", "/v1")


def client_of(base_url: str, key: str) -> openai.OpenAI:
    """Make the client that the scenarios get."""
    return openai.OpenAI(api_key=key, base_url=base_url, _strict_response_validation=True)
