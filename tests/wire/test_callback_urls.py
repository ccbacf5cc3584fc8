"""Hostile callback URLs at the doors: a clear 400 that names the field, and nothing accepted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings.models import Settings
from schemas import topics
from schemas.codec import TASK
from tests.support.bella import BODY, PUT, Double
from tests.support.hostile_urls import ALWAYS, FINE, ODD_PORTS, PRIVATE
from tests.support.memory_ingress import ingress_in_memory


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Double]:
    """An ingress that others can reach."""
    known = {"data_dir": tmp_path, "ingress": {"host": "0.0.0.0"}, "auth": {"api_keys": ["hr-local"]}}
    async with ingress_in_memory(Settings.model_validate(known)) as double:
        yield double


async def refused(double: Double, urls: list[str]) -> None:
    memory, client = double
    for url in urls:
        response = await client.post(PUT, json=BODY | {"callback_url": url})
        if url == "":
            assert response.status_code == 200, "an empty one is none"
            memory.log.clear()
            continue
        assert response.status_code == 400, url
        assert response.json()["field"] == "callback_url"
        assert response.json()["message"].startswith("callback_url ")
    assert memory.written(topics.tasks(0)) == []


async def test_the_corpus_is_refused_on_loopback(ingress: Double) -> None:
    await refused(ingress, ALWAYS)


async def test_the_corpus_is_refused_where_others_can_reach_it(strict: Double) -> None:
    await refused(strict, [*ALWAYS, *PRIVATE, *ODD_PORTS])


async def test_this_machine_may_be_called_back_on_loopback_only(ingress: Double) -> None:
    memory, client = ingress
    for url in ["http://127.0.0.1:8081/done", "http://localhost:8081/done", *FINE]:
        assert (await client.post(PUT, json=BODY | {"callback_url": url})).status_code == 200, url
    assert len(memory.written(topics.tasks(0))) == 2 + len(FINE)


async def test_the_callback_chooses_its_events(ingress: Double) -> None:
    memory, client = ingress
    there = {"callback_url": "http://127.0.0.1:8081/done"}
    chosen = there | {"callback_events": ["start", "progress", "completed", "start"]}
    assert (await client.post(PUT, json=BODY | chosen)).status_code == 200
    [record] = memory.written(topics.tasks(0))
    assert TASK.decode(record.value or b"")["callback_events"] == ["start", "progress", "completed"]
    for wrong in (["done"], "start", [1], {"start": True}, [None]):
        response = await client.post(PUT, json=BODY | there | {"callback_events": wrong})
        assert (response.status_code, response.json()["field"]) == (400, "callback_events"), wrong


async def test_an_async_call_chooses_its_events_by_a_header(ingress: Double) -> None:
    memory, client = ingress
    call = {"model": "m", "messages": [], "async": True}
    url = {"X-Headrace-Callback-Url": "http://127.0.0.1:8081/done"}
    name = "X-Headrace-Callback-Events"
    answered = await client.post("/v1/chat/completions", json=call, headers=url | {name: "start, completed,start"})
    assert answered.status_code in (200, 202), answered.text
    [record] = memory.written(topics.tasks(0))
    assert TASK.decode(record.value or b"")["callback_events"] == ["start", "completed"]
    refused = await client.post("/v1/chat/completions", json=call, headers=url | {name: "done"})
    assert refused.status_code == 400
    assert name in refused.text
