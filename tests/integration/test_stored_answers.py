"""Large answers out of the object store, on a real server; the tests play scheduler and worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from core.storage.blobs import open_blobs
from schemas.common import Blob
from tests.support.bella import BODY, PUT
from tests.support.ingress_backend import IngressBackend, ingress_backend, ingress_running
from tests.support.kafka import patient_lookups
from tests.support.ports import free_port
from tests.support.roles import settings_for

Stage = tuple[IngressBackend, httpx.AsyncClient]
LARGE = b'{"x":"' + b"y" * 5_000_000 + b'"}'
BLOCKING = BODY | {"response_mode": "blocking"}


@pytest.fixture(scope="module")
async def stage(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder, prefix = tmp_path_factory.mktemp("answers"), f"answers-{time.time_ns()}."
    settings, _ = settings_for(kafka, folder, prefix, ingress__port=free_port())
    async with ingress_backend(settings) as behind, ingress_running(settings) as client:
        with patient_lookups():
            yield behind, client


async def stored(behind: IngressBackend, data: bytes = LARGE) -> Blob:
    return await open_blobs(behind.settings).put(data, name="results/one", media_type="application/json")


async def test_a_large_answer_arrives_whole_and_the_connection_stays(stage: Stage) -> None:
    behind, client = stage
    for _ in range(2):
        await behind.begin()
        asking = asyncio.create_task(client.post(PUT, json=BLOCKING))
        task = await behind.task()
        await behind.end(task, body=None, body_ref=await stored(behind))
        response = await asking
        assert (response.status_code, response.content) == (200, LARGE)
        assert response.headers["content-length"] == str(len(LARGE))
        assert "connection" not in response.headers


async def test_a_wrong_answer_never_arrives_whole(stage: Stage) -> None:
    behind, client = stage
    await behind.begin()
    asking = asyncio.create_task(client.post(PUT, json=BLOCKING))
    task = await behind.task()
    blob = await stored(behind)
    await stored(behind, LARGE.replace(b"yy", b"yz", 1))
    await behind.end(task, body=None, body_ref=blob)
    with pytest.raises(httpx.RemoteProtocolError, match="complete"):
        await asking
