"""What is passed on byte for byte: numbers that no double holds to the model server, and bytes that are no text back.

Before a model server that keeps the bytes that it receives, and answers with those that the request asks for.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from headrace.main import main
from schemas import topics
from tests.support import raw_upstream
from tests.support.batch_client import BatchClient
from tests.support.raw_upstream import RawUpstream, raw
from tests.support.site import CHAT, Site, keys_file, running_site
from tests.support.waiting import eventually_async, until

INLINE_BYTES = 20_000
SOUND = bytes(range(256))
ANSWER = raw(b'{"choices":[{"message":{"content":"yes"}}]}', "application/json")
upstream = raw_upstream.raw_upstream
NUMBERS = b'"seed":123456789012345678901234567890,"top_p":1e400,"min_p":0.10000000000000000000000001,"n":-0.0'


@pytest.fixture(scope="module")
async def site(kafka: str, upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(
        kafka,
        tmp_path_factory.mktemp("untouched"),
        ingresses=1,
        keys=keys_file("numbers", "sounds"),
        upstream__urls=[upstream.url],
        ingress__check_models=False,
        direct__default_tenant="numbers",
        storage__inline_bytes=INLINE_BYTES,
    ) as opened:
        yield opened


def body_of(name: str) -> bytes:
    """Write a request that says who it is, with numbers that no parser keeps."""
    return b'{"model":"m","messages":[{"role":"user","content":"%b"}],%b,"sim":%b}' % (
        name.encode(),
        NUMBERS,
        json.dumps(ANSWER).encode(),
    )


def exact(body: bytes) -> dict[str, Any]:
    """Read a request with its numbers as they are written; `stream` may be forced to false."""
    found: dict[str, Any] = json.loads(body, parse_int=str, parse_float=str)
    found.pop("stream", None)
    return found


async def arrived(upstream: RawUpstream, name: str, count: int = 1) -> list[bytes]:
    def found() -> list[bytes]:
        return [body for body in upstream.received if b'"content":"%b"' % name.encode() in body]

    await eventually_async(lambda: len(found()) >= count, what=f"{count} calls of {name}")
    return found()


async def test_numbers_that_no_double_holds_arrive_as_they_were_sent(site: Site, upstream: RawUpstream) -> None:
    client = BatchClient(site, "numbers")
    put = b'{"queue":"numbers","endpoint":"%b","response_mode":"blocking","data":%b}' % (CHAT.encode(), body_of("put"))
    kind = {"content-type": "application/json"}
    async with client.call("POST", "/v1/queue/put", data=put, headers=kind) as answer:
        assert answer.status == 200, await answer.text()
    async with client.call("POST", CHAT, data=body_of("mirror"), headers=kind) as answer:
        assert answer.status == 200, await answer.text()
    async with AIOKafkaProducer(bootstrap_servers=site.settings.kafka.bootstrap) as producer:
        direct = b'{"queue":"numbers","endpoint":"%b","data":%b}' % (CHAT.encode(), body_of("direct"))
        await producer.send_and_wait(site.settings.topic(topics.tasks(1)), direct)
    batch = await client.create(await client.upload(b'{"custom_id":"c","body":%b}\n' % body_of("line")))
    assert (await client.batch_ended(batch))["request_counts"]["completed"] == 1
    for name in ("put", "mirror", "direct", "line"):
        [received] = await arrived(upstream, name)
        assert exact(received) == exact(body_of(name)), name
        assert NUMBERS in received
    for options in (["--queue-to", "again"], ["--queue-to", "again", "--model-to", "m2"]):
        command = ["replay", "run", *options, "--yes", "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, main, command, env=site.env)
        assert result.exit_code == 0, result.output
    for name in ("put", "mirror", "direct", "line"):
        _, *repeated = await arrived(upstream, name, 3)
        models = [exact(body).pop("model") for body in repeated]
        assert sorted(set(models)) == ["m", "m2"], name
        for body, model in zip(repeated, models, strict=True):
            assert exact(body) == exact(body_of(name)) | {"model": model}
            assert NUMBERS in body


async def test_bytes_come_back_as_base64_with_their_media_type_in_a_batch_as_elsewhere(site: Site) -> None:
    client = BatchClient(site, "sounds")
    answers = {
        "octets": raw(SOUND, "application/octet-stream"),
        "sound": raw(SOUND, "audio/mpeg"),
        "stored": raw(SOUND * 200, "audio/wav"),
        "text": raw("grüße\n".encode(), "text/plain; charset=utf-8"),
        "refused": raw(SOUND, "application/octet-stream", status=400),
    }
    bodies = {
        name: {"model": "m", "messages": [{"role": "user", "content": name}], "sim": sim}
        for name, sim in answers.items()
    }
    lines = [json.dumps({"custom_id": name, "body": body}).encode() for name, body in bodies.items()]
    batch = await client.create(await client.upload(b"\n".join(lines)))
    assert (await client.batch_ended(batch))["request_counts"] == {"total": 5, "completed": 4, "failed": 1}
    files = [await client.ask("GET", f"/v1/batches/{batch['id']}/{kind}") for kind in ("output", "errors")]
    found = {one["custom_id"]: one["response"] for file in files for one in map(json.loads, file.splitlines())}
    for name, answer in answers.items():
        response, sent = found[name], b64decode(answer["body"])
        if name == "text":
            assert response["body"] == sent.decode()
            assert "result_encoding" not in response
            continue
        assert response["result_encoding"] == "base64"
        assert f"content-type: {response['result_content_type']}\r\n" in answer["head"]
        assert b64decode(response["body"]) == sent
        assert response["status_code"] == (400 if name == "refused" else 200)
    task_id = await client.submit(members={"data": bodies["sound"]})
    shown = await until(lambda: client.ask("GET", f"/v1/tasks/{task_id}"), lambda task: task["status"] == "completed")
    assert [shown[name] for name in ("result", "result_content_type", "result_encoding")] == [
        found["sound"][name] for name in ("body", "result_content_type", "result_encoding")
    ]
