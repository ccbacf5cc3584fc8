"""X-Request-Id on every answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from tests.support.bella import BODY, PUT, Double, answer
from tests.support.memory_server import served_in_memory

MADE = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize(
    ("method", "path", "json", "status"),
    [
        ("POST", PUT, BODY, 200),
        ("POST", PUT, {}, 400),
        ("POST", "/v1/chat/completions", {"model": "m"}, 401),
        ("POST", "/v1/batches", {}, 400),
        ("GET", "/v1/tasks/nonsense", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/livez", None, 200),
        ("DELETE", PUT, None, 405),
    ],
)
async def test_every_answer_has_one(ingress: Double, method: str, path: str, json: Any, status: int) -> None:
    headers = {"authorization": "Bearer no"} if status == 401 else {}
    own = await ingress[1].request(method, path, json=json, headers={**headers, "x-request-id": "mine-1/a"})
    made = [await ingress[1].request(method, path, json=json, headers=headers) for _ in range(2)]
    assert own.status_code == status
    assert own.headers.get_list("x-request-id") == ["mine-1/a"]
    ids = [one.headers["x-request-id"] for one in made]
    assert all(map(MADE.fullmatch, ids))
    assert len(set(ids)) == 2


async def test_a_stream_and_an_error_of_ours_have_one(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = ingress
    memory.answer = answer(mode="streaming", content_type="text/event-stream", body=b"data: 1\n\n")
    headers = {"x-request-id": "mine"}
    stream = await client.post(PUT, json=BODY | {"response_mode": "streaming"}, headers=headers)
    assert (stream.status_code, stream.headers["x-request-id"]) == (200, "mine")

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(memory.connected.submitter, "prepare", broken)
    failed = await client.post(PUT, json=BODY, headers=headers)
    assert (failed.status_code, failed.headers["x-request-id"]) == (500, "mine")


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "\u00e9".encode().decode("latin-1")])
async def test_one_that_no_log_could_take_is_replaced(ingress: Double, given: str) -> None:
    answered = await ingress[1].get("/livez", headers=[("x-request-id", given.encode("latin-1"))])  # type: ignore[list-item]
    assert MADE.fullmatch(answered.headers["x-request-id"])
    twice = await ingress[1].get("/livez", headers=[("x-request-id", "a"), ("x-request-id", "b")])
    assert MADE.fullmatch(twice.headers["x-request-id"])


async def test_what_the_server_itself_refuses_has_one_too(tmp_path: Path) -> None:
    async with served_in_memory(Settings(data_dir=tmp_path)) as served:
        for asked in (b"nonsense\r\n\r\n", b"GET /v1/queue/x HTTP/1.1\r\nx: " + b"y" * 70_000):
            assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", await served.raw(asked))
