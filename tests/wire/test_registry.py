"""The registry's routes: what stock tools ask, and what they are told when there is nothing."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from core.settings.models import AuthSettings, IngressSettings, Settings
from schemas.codec import RESULT, TASK, WORK, registry, schema_text
from tests.support.bella import Double
from tests.support.memory_ingress import ingress_in_memory
from tests.support.records import queue

TASKS = "headrace.tasks.online-value"
LOOSE = {"content-type": "application/vnd.schemaregistry.v1+json"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.model_validate({"data_dir": tmp_path, "direct": {"reply_topics": ["answers", "replies.*"]}})
    async with ingress_in_memory(settings) as (_, made):
        made.headers.pop("authorization")
        yield made


async def test_every_topic_with_a_schema_is_a_subject(client: httpx.AsyncClient) -> None:
    found = (await client.get("/subjects")).json()
    assert {TASKS, "headrace.results.offline-value", "headrace.usage-value", "answers-value"} <= set(found)
    assert not [name for name in found if "dead-letters" in name or "*" in name]
    assert (await client.get("/subjects", params={"subjectPrefix": "ans"})).json() == ["answers-value"]


async def test_versions_are_shown_with_the_ids_of_the_records(client: httpx.AsyncClient) -> None:
    numbers = (await client.get(f"/subjects/{TASKS}/versions")).json()
    assert numbers == list(range(1, len(numbers) + 1))
    newest = (await client.get(f"/subjects/{TASKS}/versions/latest")).json()
    assert (newest["subject"], newest["version"], newest["id"]) == (TASKS, numbers[-1], TASK.schema_id)
    assert json.loads(newest["schema"]) == json.loads(schema_text(TASK.schema_id))
    assert (await client.get(f"/subjects/{TASKS}/versions/1")).json()["id"] == 1
    text = await client.get(f"/subjects/{TASKS}/versions/latest/schema")
    assert text.json() == json.loads(newest["schema"])
    by_id = (await client.get(f"/schemas/ids/{TASK.schema_id}", params={"subject": TASKS})).json()
    assert by_id["schema"] == newest["schema"]
    stands = (await client.get(f"/schemas/ids/{TASK.schema_id}/versions")).json()
    assert {"subject": TASKS, "version": numbers[-1]} in stands


async def test_a_schema_is_found_by_its_id_alone(client: httpx.AsyncClient) -> None:
    path = f"/schemas/ids/{TASK.schema_id}"
    text = await client.get(f"{path}/schema", params={"subject": TASKS, "format": "resolved"})
    assert text.text == schema_text(TASK.schema_id), "the schema itself, and nothing around it"
    assert text.headers["content-type"] == "application/json"
    subjects = (await client.get(f"{path}/subjects", params={"deleted": "true", "subject": ""})).json()
    assert TASKS in subjects
    assert "headrace.results.online-value" not in subjects
    versions = (await client.get(f"{path}/versions", params={"deleted": "false"})).json()
    assert [one["subject"] for one in versions] == subjects
    for name, found in ((TASKS, [TASKS]), ("headrace.results.online-value", []), ("none", [])):
        assert (await client.get(f"{path}/subjects", params={"subject": name})).json() == found
    newest = {"fetchMaxId": "true", "format": "", "subject": TASKS}
    assert (await client.get(path, params=newest)).json()["maxId"] == max(registry())
    assert set((await client.get(path, params={"fetchMaxId": "false"})).json()) == {"schema"}


async def test_lists_are_cut_and_filtered_as_user_interfaces_ask(client: httpx.AsyncClient) -> None:
    every = (await client.get("/subjects", params={"deleted": "true", "offset": "0", "limit": "-1"})).json()
    assert (await client.get("/subjects", params={"offset": "1", "limit": "2"})).json() == every[1:3]
    assert (await client.get("/subjects", params={"deletedOnly": "true"})).json() == []
    assert (await client.get(f"/subjects/{TASKS}/versions", params={"deletedOnly": "true"})).json() == []
    assert (await client.get(f"/subjects/{TASKS}/versions", params={"limit": "1"})).json() == [1]
    for path in (f"/schemas/ids/{TASK.schema_id}/subjects", f"/schemas/ids/{TASK.schema_id}/versions"):
        assert (await client.get(path, params={"limit": "1"})).json() == (await client.get(path)).json()[:1]
    listed = (await client.get("/schemas", params={"subjectPrefix": TASKS})).json()
    assert [one["version"] for one in listed] == (await client.get(f"/subjects/{TASKS}/versions")).json()
    latest = (await client.get("/schemas", params={"latestOnly": "true", "deleted": "false"})).json()
    assert [one["subject"] for one in latest] == every
    assert listed[-1] in latest
    assert (await client.get(f"/subjects/{TASKS}/versions/latest/referencedby")).json() == []


@pytest.mark.parametrize("topic", ["answers", "replies.of-me", "headrace.results.online"])
async def test_reply_topics_hold_results(client: httpx.AsyncClient, topic: str) -> None:
    found = (await client.get(f"/subjects/{topic}-value/versions/latest")).json()
    assert found["id"] == RESULT.schema_id


async def test_a_work_topic_has_its_schema_whether_its_queue_is_there_or_not(client: httpx.AsyncClient) -> None:
    for name, status in (("work.any.online", 200), ("work.any.someday", 404), ("work..online", 404), ("nothing", 404)):
        assert (await client.get(f"/subjects/headrace.{name}-value/versions/latest")).status_code == status


async def test_a_schema_is_found_by_its_text_in_any_order_and_without_docs(client: httpx.AsyncClient) -> None:
    text = schema_text(TASK.schema_id)
    shuffled = json.dumps(dict(reversed(json.loads(text).items())))
    bare = json.dumps({key: value for key, value in json.loads(text).items() if key != "doc"})
    for known in (text, shuffled, bare):
        found = await client.post(f"/subjects/{TASKS}", json={"schema": known}, headers=LOOSE)
        assert (found.status_code, found.json()["id"]) == (200, TASK.schema_id)
        registered = await client.post(f"/subjects/{TASKS}/versions", json={"schema": known, "schemaType": "AVRO"})
        assert registered.json() == {"id": TASK.schema_id}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/subjects/none-value/versions", 404, 40401),
        ("GET", "/subjects/none-value/versions/1", 404, 40401),
        ("GET", f"/subjects/{TASKS}/versions/99", 404, 40402),
        ("GET", f"/subjects/{TASKS}/versions/0", 422, 42202),
        ("GET", f"/subjects/{TASKS}/versions/x/schema", 422, 42202),
        ("GET", "/schemas/ids/999", 404, 40403),
        ("GET", "/schemas/ids/abc", 404, 40403),
        ("GET", "/schemas/ids/999/schema", 404, 40403),
        ("GET", "/schemas/ids/-1/schema", 404, 40403),
        ("GET", "/schemas/ids/999/subjects", 404, 40403),
        ("GET", "/schemas/ids/999/versions", 404, 40403),
        ("GET", "/schemas/ids/1/subjects?limit=x", 400, 400),
        ("GET", "/subjects/none-value/versions/1/referencedby", 404, 40401),
        ("GET", f"/subjects/{TASKS}/versions/99/referencedby", 404, 40402),
        ("GET", "/config/none-value", 404, 40408),
        ("DELETE", "/subjects", 405, 405),
        ("GET", "/schemas/other", 404, 404),
    ],
)
async def test_what_is_not_there_has_the_codes_of_the_registry(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: int
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert set(answer.json()) == {"error_code", "message"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"schema": '{"type": "nothing"}'}, 422, 42201),
        ({"schema": "no json"}, 422, 42201),
        ({"schema": '"string"'}, 404, 40403),
        ({"schema": '{"type":"object"}', "schemaType": "JSON"}, 404, 40403),
        ({"schema": 5}, 400, 400),
        ([], 400, 400),
    ],
)
async def test_a_schema_that_is_not_ours_is_not_found(
    client: httpx.AsyncClient, body: object, status: int, code: int
) -> None:
    answer = await client.post(f"/subjects/{TASKS}", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)


async def test_nothing_can_be_registered(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"/subjects/{TASKS}/versions", json={"schema": '"string"'})
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42205)
    assert (await client.post("/subjects/none-value/versions", json={"schema": '"string"'})).status_code == 404


async def test_settings_are_told(client: httpx.AsyncClient) -> None:
    assert (await client.get("/config")).json() == {"compatibilityLevel": "BACKWARD"}
    assert (await client.get(f"/config/{TASKS}")).json() == {"compatibilityLevel": "BACKWARD"}
    assert (await client.get("/config/none-value", params={"defaultToGlobal": "true"})).status_code == 200
    assert (await client.get("/schemas/types")).json() == ["AVRO"]
    for path in ("/mode", f"/mode/{TASKS}", "/mode/none-value?defaultToGlobal=true"):
        assert (await client.get(path)).json() == {"mode": "READONLY"}
    refused = await client.put("/mode", json={"mode": "IMPORT"})
    assert (refused.status_code, refused.json()["error_code"]) == (405, 405)


async def test_beyond_loopback_a_key_is_the_password(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        ingress=IngressSettings(host="0.0.0.0"),
        auth=AuthSettings(api_keys=["sk-one", "sk-two"]),  # type: ignore[list-item]  # pydantic makes them secrets
    )
    async with ingress_in_memory(settings) as (memory, client):
        mine, other = (key.owner for key in memory.ingress.keys.entries())
        for name, owner in (("mine", mine), ("theirs", other), ("old", None)):
            memory.connected.queues._queues[name] = queue(name, owner=owner)
        client.headers.pop("authorization")
        for wrong in ({}, basic("sk-none"), {"authorization": "Basic !"}, {"authorization": "Basic c2s="}):
            refused = await client.get("/subjects", headers=wrong)
            assert (refused.status_code, refused.json()["error_code"]) == (401, 401)
            assert refused.headers["www-authenticate"].startswith("Basic")
        for right in (basic("sk-one"), {"authorization": "Bearer sk-one"}):
            found = (await client.get("/subjects", headers=right)).json()
            assert {"headrace.work.mine.online-value", "headrace.work.old.offline-value"} <= set(found)
            assert "headrace.work.theirs.online-value" not in found
            of_work = (await client.get(f"/schemas/ids/{WORK.schema_id}/subjects", headers=right)).json()
            assert "headrace.work.mine.online-value" in of_work
            assert "headrace.work.theirs.online-value" not in of_work
        for path in ("/schemas", "/schemas/ids/1/schema", "/schemas/ids/1/subjects"):
            assert (await client.get(path)).status_code == 401


async def test_the_errors_of_other_doors_stay_theirs(ingress: Double) -> None:
    _, client = ingress
    assert "error_code" not in (await client.get("/nowhere")).json()


def basic(key: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"anybody:{key}".encode()).decode()}
