"""A stock Dify client against the whole stack, with the simulator as the model server."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dify_client import AsyncClient, _clientx, errors, models

from bench.simulator import Simulator, text_for
from core.settings.loader import environment
from tests.support.ports import free_port
from tests.support.roles import running as role
from tests.support.stack import KEY, READY_S, Stack
from tests.support.waiting import POLL_S

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PING = "event: ping\n\n"
SAMPLE = """{
    "inputs": {"query": "Hello, world!"},
    "response_mode": "MODE",
    "user": "abc-123"
}"""


@pytest.fixture(scope="module", autouse=True)
def patience() -> None:
    """Give the client more than its 5 s: a machine may be busy with other tests."""
    _clientx._async_httpx_client.timeout = httpx.Timeout(60)


@pytest.fixture
async def other(
    whole: Stack, simulator: Simulator, shared: dict[str, Any], tmp_path: Path
) -> AsyncIterator[AsyncClient]:
    """A client of a second ingress."""
    port = free_port()
    own = {
        "data_dir": str(tmp_path / "data"),
        "ingress.port": port,
        "storage.url": f"file://{whole.folder}/objects",
        "upstream.urls": [simulator.url],
    }
    with role("ingress", env=environment({**shared, **own}), log=tmp_path / "ingress.log") as ingress:
        async with httpx.AsyncClient() as probe:

            async def ready() -> bool:
                try:
                    return (await probe.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                except httpx.HTTPError:
                    return False

            async with asyncio.timeout(READY_S):
                while not await ready():
                    assert ingress.process is not None
                    assert ingress.process.poll() is None, ingress.log
                    await asyncio.sleep(POLL_S)
        yield AsyncClient(api_key=KEY, api_base=f"http://127.0.0.1:{port}")


@pytest.fixture(params=["", "/v1"])
def client(whole: Stack, request: pytest.FixtureRequest) -> AsyncClient:
    return AsyncClient(api_key=KEY, api_base=whole.url + request.param)


def ask(mode: str, text: str = "Hello, world!", **members: Any) -> models.CompletionRequest:
    return models.CompletionRequest(
        inputs={"query": text}, response_mode=models.ResponseMode(mode), user="abc-123", **members
    )


def messages(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def test_blocking(client: AsyncClient) -> None:
    answer = await client.acompletion_messages(ask("blocking"))
    assert answer.event == "message"
    assert answer.mode == models.Mode.COMPLETION
    assert answer.answer == text_for(messages("Hello, world!"))
    usage = answer.metadata.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (usage.completion_tokens, usage.completion_price, usage.currency) == (8, "0.0000160", "USD")
    assert 0 < usage.latency < 60


async def test_streaming(client: AsyncClient) -> None:
    events = [event async for event in await client.acompletion_messages(ask("streaming"))]
    assert [event.event for event in events] == ["message"] * 8 + ["message_end"]
    assert "".join(event.answer for event in events[:-1]) == text_for(messages("Hello, world!"))
    assert len({event.task_id for event in events}) == 1
    assert events[-1].metadata.usage.completion_tokens == 8
    assert events[-1].metadata.usage.completion_price == "0.0000160"


async def test_pings_come_while_the_model_is_silent(whole: Stack) -> None:
    client = AsyncClient(api_key=KEY, api_base=whole.url)
    stream = await client.acompletion_messages(ask("streaming"), headers={"X-Headrace-Queue": "silent"})
    assert [event.event async for event in stream][-1] == "message_end"


async def test_each_ping_is_an_event_of_its_own_on_the_wire(whole: Stack) -> None:
    async with httpx.AsyncClient(base_url=whole.url, timeout=60) as plain:
        answer = await plain.post(
            "/completion-messages",
            json={"inputs": {"query": "Hello, world!"}, "response_mode": "streaming", "user": "abc-123"},
            headers={"authorization": f"Bearer {KEY}", "X-Headrace-Queue": "silent"},
        )
    *frames, end = answer.content.split(b"\n\n")
    pings = [frame for frame in frames if not frame.startswith(b"data: ")]
    assert (answer.status_code, end, set(pings)) == (200, b"", {b"event: ping"})
    assert frames[: len(pings)] == pings, "the model server is silent before its answer only"
    assert json.loads(frames[-1].removeprefix(b"data: "))["event"] == "message_end"


async def test_stop(client: AsyncClient) -> None:
    stream = await client.acompletion_messages(ask("streaming"), headers={"X-Headrace-Queue": "slow"})
    events = []
    async for event in stream:
        events.append(event)
        if len(events) == 2:
            stranger = await client.astop_completion_messages(event.task_id, models.StopRequest(user="somebody-else"))
            assert stranger.result == "success"
        if len(events) == 6:  # so the stranger's stop had no effect
            stopped = await client.astop_completion_messages(event.task_id, models.StopRequest(user="abc-123"))
            assert stopped.result == "success"
    assert events[-1].event == "message_end"
    assert {event.event for event in events[:-1]} == {"message"}
    assert 6 <= len(events) < 400
    assert events[-1].metadata.usage.completion_tokens == len(events) - 1
    unknown = await client.astop_completion_messages("no-such-task", models.StopRequest(user="abc-123"))
    assert unknown.result == "success"


async def test_any_ingress_stops_a_stream_and_knows_the_files(whole: Stack, other: AsyncClient) -> None:
    here = AsyncClient(api_key=KEY, api_base=whole.url)
    stream = await here.acompletion_messages(ask("streaming"), headers={"X-Headrace-Queue": "slow"})
    events = []
    async for event in stream:
        events.append(event)
        if len(events) == 1:
            await other.astop_completion_messages(event.task_id, models.StopRequest(user="abc-123"))
    assert events[-1].event == "message_end"
    assert len(events) < 400
    file = await here.aupload_files(("mill.png", PICTURE, "image/png"), models.UploadFileRequest(user="abc-123"))
    local = models.File(type="image", transfer_method="local_file", upload_file_id=file.id)
    answer = await other.acompletion_messages(ask("blocking", files=[local]))
    assert answer.event == "message"


async def test_an_uploaded_picture_reaches_the_model(client: AsyncClient, simulator: Simulator) -> None:
    file = await client.aupload_files(("mill.png", PICTURE, "image/png"), models.UploadFileRequest(user="abc-123"))
    assert (file.name, file.size, file.extension, file.mime_type) == ("mill.png", len(PICTURE), "png", "image/png")
    local = models.File(type="image", transfer_method="local_file", upload_file_id=file.id)
    remote = models.File(type="image", transfer_method="remote_url", url="https://pictures.example/mill.png")
    text = f"What is on the picture {time.time_ns()}?"
    await client.acompletion_messages(ask("blocking", text, files=[local, remote]))
    encoded = base64.b64encode(PICTURE).decode()
    [call] = (call for call in simulator.recent if text in call.body.decode(errors="replace"))
    assert json.loads(call.body)["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": text},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
                {"type": "image_url", "image_url": {"url": "https://pictures.example/mill.png"}},
            ],
        }
    ]
    other = models.CompletionRequest(
        inputs={"query": "x"}, response_mode=models.ResponseMode.BLOCKING, user="somebody-else", files=[local]
    )
    with pytest.raises(errors.DifyInvalidParam):
        await client.acompletion_messages(other)


async def test_errors_are_the_clients_own(client: AsyncClient, whole: Stack) -> None:
    with pytest.raises(errors.DifyCompletionRequestError) as failed:
        await client.acompletion_messages(ask("blocking"), headers={"X-Headrace-Queue": "broken"})
    assert failed.value.status == 400
    with pytest.raises(errors.DifyFileTooLarge):
        await client.aupload_files(("mill.png", bytes(3_000_000)), models.UploadFileRequest(user="abc-123"))
    with pytest.raises(errors.DifyUnsupportedFileType):
        await client.aupload_files(("mill.exe", PICTURE), models.UploadFileRequest(user="abc-123"))
    with pytest.raises(errors.DifyResourceNotFound):
        await client.afeedback_messages("no-such-message", models.FeedbackRequest(rating="like", user="abc-123"))
    with pytest.raises(errors.DifyAPIError) as refused:
        await AsyncClient(api_key="wrong", api_base=whole.url).acompletion_messages(ask("blocking"))
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")


async def test_a_stream_that_breaks_ends_with_an_error_event(whole: Stack) -> None:
    client = AsyncClient(api_key=KEY, api_base=whole.url)
    stream = await client.acompletion_messages(ask("streaming"), headers={"X-Headrace-Queue": "cut"})
    last = [event async for event in stream][-1]
    assert (last.event, last.code, last.status) == ("error", "completion_request_error", 400)


async def test_feedback(client: AsyncClient) -> None:
    answer = await client.acompletion_messages(ask("blocking"))
    rated = await client.afeedback_messages(
        answer.message_id, models.FeedbackRequest(rating="dislike", user="abc-123", content="too short")
    )
    assert rated.result == "success"


async def test_an_idempotency_key_is_one_task_in_each_mode(whole: Stack, simulator: Simulator) -> None:
    client = AsyncClient(api_key=KEY, api_base=whole.url)
    text = f"once {time.time_ns()}"
    for mode in ("blocking", "streaming"):
        headers = {"Idempotency-Key": f"{mode}-{text}"}
        twins = []
        for _ in range(2):
            said = await client.acompletion_messages(ask(mode, text), headers=headers)
            twins.append([said] if mode == "blocking" else [event async for event in said])
        first, second = ([(event.task_id, getattr(event, "answer", None)) for event in one] for one in twins)
        assert first == second
    calls = [call for call in simulator.recent if text in call.body.decode(errors="replace")]
    assert len(calls) == 2


@pytest.mark.parametrize("mode", ["blocking", "streaming"])
async def test_the_documented_call(whole: Stack, mode: str) -> None:
    body = SAMPLE.replace("MODE", mode)
    command = [
        "curl",
        "-sS",
        "-i",
        "-X",
        "POST",
        f"{whole.url}/completion-messages",
        "--header",
        f"Authorization: Bearer {KEY}",
        "--header",
        "Content-Type: application/json",
        "--data-raw",
        body,
    ]
    said = (await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)).stdout.decode()
    head, _, content = said.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    if mode == "blocking":
        assert json.loads(content)["answer"] == text_for(messages("Hello, world!"))
    else:
        assert "content-type: text/event-stream" in head
        while content.startswith(PING):  # while the model server has not responded yet
            content = content.removeprefix(PING)
        assert content.startswith('data: {"event":"message"')
        assert '"event":"message_end"' in content
        assert "[DONE]" not in content
