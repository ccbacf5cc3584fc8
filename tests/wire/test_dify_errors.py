"""What completion-messages refuses, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.settings.models import Settings
from schemas import topics
from tests.support.bella import Double, answer
from tests.support.dify import BODY, DIFY, URL, completion, error_of
from tests.support.memory_ingress import ingress_in_memory

IMAGE = {"type": "image", "transfer_method": "remote_url", "url": "https://pictures.example/a.png"}


SETTINGS = DIFY


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"inputs": None}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {"a": ""}}, "inputs"),
        ({"query": 3}, "query"),
        ({"response_mode": "later"}, "response_mode"),
        ({"response_mode": ["blocking"]}, "response_mode"),
        ({"user": 7}, "user"),
        ({"user": "x" * 257}, "user"),
        ({"files": {}}, "files"),
        ({"files": ["x"]}, "files[0]"),
        ({"files": [IMAGE, IMAGE | {"type": "picture"}]}, "files[1].type"),
        ({"files": [IMAGE | {"type": "document"}]}, "files[0].type"),
        ({"files": [IMAGE | {"transfer_method": "ftp"}]}, "files[0].transfer_method"),
        ({"files": [IMAGE | {"url": ""}]}, "files[0].url"),
        ({"files": [IMAGE | {"url": "file:///etc/passwd"}]}, "files[0].url"),
        ({"files": [IMAGE | {"url": "https://a b"}]}, "files[0].url"),
        ({"files": [IMAGE | {"upload_file_id": "x"}]}, "files[0].upload_file_id"),
        ({"files": [{"type": "image", "transfer_method": "local_file"}]}, "files[0].upload_file_id"),
        (
            {"files": [{"type": "image", "transfer_method": "local_file", "upload_file_id": "../../x"}]},
            "files[0]",
        ),
    ],
)
async def test_a_wrong_member_is_named(ingress: Double, change: dict[str, Any], field: str) -> None:
    memory, client = ingress
    response = await client.post(URL, json=BODY | change)
    assert error_of(response) == (400, "invalid_param", field)
    assert memory.written(topics.tasks(0)) == []


async def test_too_many_files(ingress: Double) -> None:
    response = await ingress[1].post(URL, json=BODY | {"files": [IMAGE] * 11})
    assert error_of(response) == (400, "too_many_files", "files")


async def test_absent_members_have_defaults(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer(body=completion())
    nothing = {"query": None, "response_mode": None, "user": None, "files": None}
    for body in ({"inputs": {"query": "x"}}, {"inputs": {"query": "x"}, **nothing}):
        assert (await client.post(URL, json=body)).json()["event"] == "message"


async def test_broken_json_says_where(ingress: Double) -> None:
    response = await ingress[1].post(URL, content=b'{"inputs": {"query": "x",}}')
    assert error_of(response) == (400, "invalid_param", "body")
    assert "line 1 column" in response.json()["message"]


@pytest.mark.parametrize("path", [URL, f"/v1{URL}", f"{URL}/x/stop", "/files/upload", "/v1/messages/x/feedbacks"])
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic aHI6bG9jYWw="])
async def test_without_a_key(ingress: Double, path: str, authorization: str) -> None:
    response = await ingress[1].post(path, json=BODY, headers={"authorization": authorization})
    assert error_of(response)[:2] == (401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("path", ["/parameters", "/v1/info", "/meta"])
async def test_neighbours_need_a_key_too(ingress: Double, path: str) -> None:
    assert error_of(await ingress[1].get(path, headers={"authorization": ""}))[:2] == (401, "unauthorized")


async def test_method_and_size(ingress: Double) -> None:
    memory, client = ingress
    response = await client.get(URL)
    assert error_of(response)[:2] == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert error_of(await client.post(f"{URL}/nothing"))[:2] == (404, "not_found")
    response = await client.post(URL, json=BODY | {"query": "x" * 30_000})
    assert error_of(response)[:2] == (413, "file_too_large")
    memory.broken = True
    response = await client.post(URL, json=BODY)
    assert error_of(response)[:2] == (503, "unavailable")
    assert response.headers["retry-after"]


async def test_a_queue_without_a_model_names_the_setting(ingress: Double) -> None:
    response = await ingress[1].post(URL, json=BODY, headers={"x-headrace-queue": "other"})
    assert error_of(response)[:2] == (400, "app_unavailable")
    assert "[queues.other]" in response.json()["message"]


async def test_a_queue_without_a_model_takes_the_first_that_is_served(
    ingress: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, client = ingress

    async def models() -> list[dict[str, Any]]:
        return [{"id": "first"}, {"id": "second"}]

    monkeypatch.setattr(memory.ingress.model_catalog, "models", models)
    memory.answer = lambda task: answer(body=completion(task["model"] or ""))(task)
    response = await client.post(URL, json=BODY, headers={"x-headrace-queue": "other"})
    assert response.json()["answer"] == "first"


@pytest.mark.parametrize("value", ["a b", "x" * 65])
async def test_a_wrong_queue_header_is_named(ingress: Double, value: str) -> None:
    response = await ingress[1].post(URL, json=BODY, headers={"x-headrace-queue": value})
    assert error_of(response) == (400, "invalid_param", "X-Headrace-Queue")


async def test_a_user_can_be_required(tmp_path: Path) -> None:
    strict = Settings.model_validate({"data_dir": tmp_path, **DIFY, "ingress": {"require_user": True}})
    async with ingress_in_memory(strict) as (_, client):
        response = await client.post(URL, json={"inputs": {"query": "x"}})
    assert response.content == (
        b'{"code":"invalid_param","message":"Arg user must be provided.","status":400,"params":"user"}'
    )


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (500, {"message": "m"}, "completion_request_error"),
        (400, {"message": "m", "code": "context_length_exceeded"}, "completion_request_error"),
        (429, {"message": "m", "code": "rate_limit_exceeded"}, "completion_request_error"),
        (401, {"message": "m"}, "provider_not_initialize"),
        (429, {"message": "m", "code": "insufficient_quota"}, "provider_quota_exceeded"),
        (404, {"message": "m", "code": "model_not_found"}, "model_currently_not_support"),
    ],
)
async def test_the_upstreams_failures(ingress: Double, status: int, error: dict[str, str], code: str) -> None:
    memory, client = ingress
    body = json.dumps({"error": error}).encode()
    failed = {"state": "failed", "status_code": status, "error_code": "upstream_error", "body": body}
    memory.answer = answer(**failed)
    response = await client.post(URL, json=BODY)
    assert response.content == b'{"code":"%b","message":"m","status":400}' % code.encode()
    assert response.headers["x-task-id"].startswith("TASK-")


@pytest.mark.parametrize(
    "result",
    [
        {"state": "failed", "status_code": 503, "error_code": "upstream_unreachable", "error_message": "nobody there"},
        {"state": "failed", "status_code": 408, "error_code": "timeout", "error_message": "no outcome within 1 s"},
        {"state": "cancelled", "status_code": 499, "error_code": "cancelled", "error_message": "cancelled on request"},
        {"body": b"<html>"},
        {"body": b'{"error":{"message":"said with 200"}}'},
        {"body": None},
    ],
)
async def test_what_is_no_answer_is_a_failed_call(ingress: Double, result: dict[str, Any]) -> None:
    memory, client = ingress
    memory.answer = answer(**{"body": None, **result})
    assert error_of(await client.post(URL, json=BODY))[:2] == (400, "completion_request_error")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}], "in parts"),
        (None, ""),
    ],
)
async def test_the_text_of_an_answer(ingress: Double, content: Any, text: str) -> None:
    memory, client = ingress
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
    memory.answer = answer(body=body)
    said = (await client.post(URL, json=BODY)).json()
    assert said["answer"] == text
    assert said["metadata"]["usage"]["total_tokens"] == 4 + -(-len(text) // 4)


async def test_the_limits_of_a_key_hold_for_files_too(tmp_path: Path) -> None:
    limited = Settings.model_validate({"data_dir": tmp_path, **DIFY, "auth": {"requests_per_minute": 2}})
    async with ingress_in_memory(limited) as (_, client):
        files = {"file": ("a.txt", b"x")}
        answers = [await client.post("/files/upload", files=files) for _ in range(3)]
        assert [one.status_code for one in answers] == [201, 201, 429]
        for response in (answers[2], await client.post(URL, json=BODY)):
            assert error_of(response)[:2] == (429, "too_many_requests")
            assert int(response.headers["retry-after"]) > 0
