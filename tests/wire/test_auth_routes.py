"""Every route of the OpenAPI document: closed without a key, within its scope, and silent about what is not yours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from core.settings.models import AuthSettings, IngressSettings, QueueSettings, Settings
from schemas import topics
from schemas.codec import TASK
from tests.support.bella import BODY, PUT, Double, row_of
from tests.support.memory_ingress import ingress_in_memory
from tests.support.openapi_operations import Operation, in_dialect, operations
from tests.support.waiting import eventually_async, turns

KEYS = """
[[tenants.acme.keys]]
key = "sk-acme"
scopes = ["submit", "read", "admin"]
[[tenants.acme.keys]]
key = "sk-submit"
scopes = ["submit"]
[[tenants.acme.keys]]
key = "sk-read"
scopes = ["read"]
[[tenants.acme.keys]]
key = "sk-admin"
scopes = ["admin"]
[[tenants.acme.keys]]
key = "sk-once"
requests_per_minute = 1
[[tenants.other.keys]]
key = "sk-other"
scopes = ["submit", "read", "admin"]
"""
SILENT = {"/completion-messages/{task_id}/stop"}
"""Paths that answer 200 whether there is such a task or not, as their source does."""
HOLDERS_ONLY = {"/v1/queue/{task_id}/complete"}
"""Paths that are for whoever holds the task as its worker: its owner alone is nobody there."""
FOR_ALL_TENANTS = "/v1/admin/"
"""Paths whose keys may see everything."""
ALL = list(operations())
SECURED = [one for one in ALL if one.secured]
every_operation = pytest.mark.parametrize("operation", ALL, ids=str)
every_secured = pytest.mark.parametrize("operation", SECURED, ids=str)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Double]:
    (tmp_path / "keys.toml").write_text(KEYS)
    settings = Settings(
        data_dir=tmp_path,
        auth=AuthSettings(keys_file=tmp_path / "keys.toml"),
        ingress=IngressSettings(check_models=False),
        queues={"default": QueueSettings(model="smollm2"), "night": QueueSettings(level=1)},
    )
    async with ingress_in_memory(settings) as double:
        yield double


async def asked(
    ingress: Double, operation: Operation, key: str | None, *, url: str | None = None
) -> httpx.Response | None:
    """Send a request; None when it is held, which a refusal never is."""
    memory, client = ingress
    headers = {} if key is None else bearer(key)
    request = operation.request(client, url or operation.url(), headers)
    if key is None:
        del request.headers["authorization"]
    sending = asyncio.create_task(client.send(request))
    waiters = memory.ingress.waiters
    holding = asyncio.create_task(eventually_async(lambda: waiters._by_key or waiters._followers))
    try:
        await asyncio.wait([sending, holding], return_when=asyncio.FIRST_COMPLETED)
        await turns()  # what is registered may be answered at once
        if sending.done():
            return sending.result()
        holding.result()  # or it is neither answered nor held
        return None
    finally:
        for each in (sending, holding):
            each.cancel()
        await asyncio.gather(sending, holding, return_exceptions=True)


@every_secured
async def test_without_a_right_key_nothing_is_told(ingress: Double, operation: Operation) -> None:
    for key in (None, "sk-wrong", ""):
        refused = await asked(ingress, operation, key)
        assert refused is not None, key
        assert refused.status_code == 401, key
        assert in_dialect(operation.path, refused), key
        assert refused.headers["www-authenticate"].startswith("Bearer"), key
        assert "sk-" not in refused.text, key
        assert not ingress[0].log, key


@every_secured
async def test_a_key_does_what_its_scopes_say(ingress: Double, operation: Operation) -> None:
    [wanted] = operation.described["security"][0]["key"]
    for scope in ("submit", "read", "admin"):
        answered = await asked(ingress, operation, f"sk-{scope}")
        if scope == wanted:
            assert answered is None or answered.status_code not in (401, 403)
            continue
        assert answered is not None
        assert answered.status_code == 403
        assert in_dialect(operation.path, answered)
        assert f"the scope {wanted}; yours has {scope}" in answered.text or answered.json() == "Forbidden"


@pytest.mark.parametrize(
    "operation",
    [one for one in SECURED if one.names_a_task and not one.path.startswith(FOR_ALL_TENANTS)],
    ids=str,
)
async def test_a_task_of_another_tenant_is_not_there(ingress: Double, operation: Operation) -> None:
    memory, client = ingress
    accepted = await client.post(PUT, json=BODY, headers=bearer("sk-acme"))
    task_id = accepted.json()["data"]
    [record] = memory.written(topics.tasks(0))
    task = TASK.decode(record.value or b"")
    written = sum(map(len, memory.log.values()))
    for changes in ({}, {"state": "completed", "finished_ms": 5, "status_code": 200}):
        memory.rows[task_id.encode()] = row_of(task, 0, user=operation.user, **changes)
        foreign = await asked(ingress, operation, "sk-other", url=operation.url(task_id))
        assert foreign is not None
        assert sum(map(len, memory.log.values())) == written
        missing = await asked(ingress, operation, "sk-other")
        assert missing is not None
        assert missing.status_code == foreign.status_code
        if operation.path.removeprefix("/v1") in SILENT:
            assert foreign.status_code == 200
            continue
        assert foreign.status_code == 404
        assert in_dialect(operation.path, foreign)
        if operation.path in HOLDERS_ONLY:
            continue
        own = await asked(ingress, operation, "sk-acme", url=operation.url(task_id))
        assert own is None or own.status_code not in (401, 403, 404)
        written = sum(map(len, memory.log.values()))


@pytest.mark.parametrize("operation", [one for one in SECURED if one.submits], ids=str)
async def test_a_key_that_has_used_its_minute_is_told_when_to_come_again(ingress: Double, operation: Operation) -> None:
    memory, client = ingress
    assert (await client.post(PUT, json=BODY, headers=bearer("sk-once"))).status_code == 200
    written = sum(map(len, memory.log.values()))
    refused = await asked(ingress, operation, "sk-once")
    assert refused is not None
    assert refused.status_code == 429, refused.text
    assert in_dialect(operation.path, refused)
    assert "1 requests per minute" in refused.text
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"requests";q=1;w=60'
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert sum(map(len, memory.log.values())) == written


@every_operation
async def test_another_method_is_refused_with_those_that_are_possible(ingress: Double, operation: Operation) -> None:
    _, client = ingress
    refused = await client.request("PROPFIND", operation.url())
    assert refused.status_code == 405
    assert operation.method in refused.headers["allow"]
    assert in_dialect(operation.path, refused)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/queue/nothing", "/v1/queue", "/completion-messages/x/y"])
async def test_an_unknown_path_is_not_there(ingress: Double, path: str) -> None:
    answered = await ingress[1].get(path)
    assert answered.status_code in (404, 405)
    assert in_dialect(path, answered)


@pytest.mark.parametrize(
    ("queue", "why"), [("default", "is the default queue"), ("night", "is defined in the settings")]
)
async def test_a_queue_of_all_tenants_is_not_given_to_the_workers_of_one(ingress: Double, queue: str, why: str) -> None:
    memory, client = ingress
    asked = {"queue": queue, "endpoint": "/v1/chat/completions"}
    refused = await client.post("/v1/queue/register", json=asked, headers=bearer("sk-submit"))
    assert (refused.status_code, refused.json()["code"]) == (403, 403)
    assert f"queue {queue} {why}; this needs a key with the scope admin" in refused.text
    assert not memory.log
    passed = await client.post("/v1/queue/register", json=asked, headers=bearer("sk-other"))
    assert passed.status_code not in (401, 403)
