"""Registering in an outside registry: what it has afterwards, and what stops it before anything is written."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from core.errors import ConfigError, Unavailable
from core.kafka.admin import Change
from core.schema_registry.client import RegistryClient
from core.schema_registry.diff import compare_registry
from core.schema_registry.register import register
from core.settings.models import Settings
from schemas.codec import CHUNK, registry, schema_text
from schemas.subjects import subjects, versions_of
from tests.support.schema_registry import RegistryDouble, schema_registry

WANTED = subjects(prefix="headrace.", existing=["headrace.work.night.offline", "headrace.work", "elsewhere"])
TASKS = "headrace.tasks.online-value"
OTHER = '{"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "id", "type": "long"}]}'


@pytest.fixture
def there() -> RegistryDouble:
    return RegistryDouble()


def client(there: RegistryDouble, *, path: str = "", **kafka: Any) -> RegistryClient:
    settings = Settings.model_validate({"kafka": {"registry_url": there.url + path, **kafka}})
    return RegistryClient(settings, retry_timeout_s=60, transport=there.transport(), sleep=no_wait)


async def no_wait(_: float) -> None:
    pass


async def run(there: RegistryDouble, **options: Any) -> list[Change]:
    said: list[str] = []
    async with client(there, **options) as one:
        done = await register(one, WANTED, say=said.append)
    assert len(said) == (1 + len({change.topic for change in done}) if done else 0)
    return done


async def refusal(there: RegistryDouble, **options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        await run(there, **options)
    return str(refused.value)


async def test_every_version_stands_under_its_id_and_subject_and_a_second_run_changes_nothing(
    there: RegistryDouble,
) -> None:
    done = await run(there)
    assert {number: json.loads(text) for number, text in there.main.schemas.items()} == {
        number: json.loads(schema_text(number)) for number in registry()
    }
    assert there.main.subjects == {
        subject: {one.number: one.schema_id for one in versions_of(record)} for subject, record in WANTED.items()
    }
    assert {"headrace.Work", "headrace.work.night.offline-value", TASKS} <= set(WANTED)
    assert Change(TASKS, "schema", "missing", "version 2, id 11") in done
    assert there.main.modes == {}
    there.calls.clear()
    assert await run(there) == []
    assert there.changes() == []


@pytest.mark.parametrize("path", ["", "/contexts/.headrace"])
async def test_confluents_own_client_reads_records_by_id_with_it(there: RegistryDouble, path: str) -> None:
    await run(there, path=path)
    with schema_registry(there):
        await asyncio.to_thread(read_with_stock_client, there.url + path)


def read_with_stock_client(url: str) -> None:
    stock = SchemaRegistryClient({"url": url})
    assert json.loads(stock.get_schema(CHUNK.schema_id).schema_str or "") == json.loads(schema_text(CHUNK.schema_id))
    assert stock.get_latest_version(TASKS).schema_id == versions_of("task")[-1].schema_id
    read = AvroDeserializer(stock)
    raw = CHUNK.encode({"id": "TASK-1", "attempt": 1, "worker": "w", "seq": 0, "frames": [b"{}"], "events": []})
    assert read(raw, SerializationContext("headrace.chunks", MessageField.VALUE)) == CHUNK.decode(raw)


async def test_what_is_there_already_stays_and_is_sent_back_in_its_own_words(there: RegistryDouble) -> None:
    version = versions_of("chunk")[0]
    bare = json.loads(version.text)
    bare.pop("doc", None)
    for one in bare["fields"]:
        one.pop("doc", None)
    there.put(version.schema_id, json.dumps(bare), "mine-value")
    there.put(1_000, OTHER)
    there.main.modes[TASKS] = "READWRITE"
    await run(there)
    assert json.loads(there.main.schemas[version.schema_id]) == bare
    assert there.main.subjects["headrace.chunks-value"] == {1: 6, 2: 22}
    assert there.main.modes == {TASKS: "READWRITE"}
    assert there.main.subjects["other-value"] == {1: 1_000}


async def test_an_id_of_another_schema_is_refused_before_anything_is_written(there: RegistryDouble) -> None:
    there.put(3, OTHER)
    sentence = await refusal(there)
    assert "shop.Order under id 3" in sentence
    assert "headrace.Work" in sentence
    assert "/contexts/.headrace" in sentence
    assert there.changes() == []
    await run(there, path="/contexts/.headrace/")
    assert set(there.contexts[".headrace"].schemas) == set(registry())
    assert set(there.main.schemas) == {3}


async def test_a_version_under_another_id_is_refused_before_anything_is_written(there: RegistryDouble) -> None:
    there.put(77, schema_text(1), TASKS, 1)
    sentence = await refusal(there)
    assert f"version 1 of {TASKS} as id 77" in sentence
    assert "carry id 1 (headrace.Task)" in sentence
    assert "auto.register.schemas" in sentence
    assert there.changes() == []


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"has_modes": False}, "has no IMPORT mode (PUT /mode answers 405)"),
        ({"mutable": False}, "Mode changes are not allowed"),
        ({"mode": "READONLY"}, "is READONLY for"),
        ({"ignores_ids": True}, "ignores given ids"),
        ({"user": "headrace:right"}, "kafka.registry_password"),
        ({"foreign_restores": 99}, "not in import mode"),
    ],
)
async def test_a_registry_that_cannot_take_ids_is_told_of(
    there: RegistryDouble, state: dict[str, Any], told: str
) -> None:
    vars(there).update(state)
    if "ignores_ids" in state:
        there.put(500, OTHER)
    sentence = await refusal(there)
    assert told in sentence
    assert there.url in sentence
    assert there.main.modes == {}


async def test_user_and_password_are_sent_and_never_told(there: RegistryDouble) -> None:
    there.user = "headrace:sesame-7"
    assert "sesame-8" not in await refusal(there, registry_user="headrace", registry_password="sesame-8")
    await run(there, registry_user="headrace", registry_password="sesame-7")
    assert set(there.main.schemas) == set(registry())


async def test_it_goes_on_when_the_registry_is_itself_again_or_another_run_was_in_between(
    there: RegistryDouble,
) -> None:
    there.failures = 5
    there.foreign_restores = 2
    await run(there)
    assert set(there.main.schemas) == set(registry())
    assert there.main.modes == {}


async def test_a_mode_that_a_killed_run_left_is_ended(there: RegistryDouble) -> None:
    there.main.modes[TASKS] = "IMPORT"
    await run(there)
    assert there.main.modes == {}
    there.main.modes[TASKS] = "IMPORT"
    assert await run(there) == [Change(TASKS, "mode", "IMPORT", "as the registry's")]
    assert there.main.modes == {}


async def test_a_registry_in_import_mode_stays_so_and_an_old_one_gets_a_mode_of_the_subject(
    there: RegistryDouble,
) -> None:
    there.mode = "IMPORT"
    await run(there)
    assert not [call for call in there.changes() if "/mode" in call]
    there.contexts.clear()
    there.mode, there.deletes_modes = "READWRITE", False
    await run(there)
    assert there.main.modes == dict.fromkeys(WANTED, "READWRITE")


async def test_an_account_that_may_only_read_is_enough_while_nothing_is_missing(there: RegistryDouble) -> None:
    await run(there)
    there.tells_modes = False
    assert await run(there) == []
    there.main.subjects[TASKS].pop(2)
    assert "answers 403 to PUT /mode" in await refusal(there)


async def test_a_survey_only_reads(there: RegistryDouble) -> None:
    async with client(there) as one:
        found = await compare_registry(one, WANTED)
    assert {lack.subject for lack in found.lacks} == set(WANTED)
    assert there.changes() == []


async def answered(reply: httpx.Response | Exception, clock: list[float]) -> str:
    def handle(_: httpx.Request) -> httpx.Response:
        clock[0] += 1
        if isinstance(reply, Exception):
            raise reply
        return reply

    settings = Settings.model_validate({"kafka": {"registry_url": "http://registry.example"}})
    transport = httpx.MockTransport(handle)
    made = RegistryClient(settings, retry_timeout_s=30, transport=transport, sleep=no_wait, clock=lambda: clock[0])
    with pytest.raises((ConfigError, Unavailable)) as refused:
        async with made:
            await made.schema(1)
    return f"{type(refused.value).__name__}: {refused.value}"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (httpx.ConnectError("refused"), "Unavailable: the schema registry http://registry.example does not answer"),
        (httpx.Response(502, text="<html>"), "Unavailable: the schema registry http://registry.example answers 502"),
        (httpx.Response(200, text="<html>"), "is no schema registry: it answers 200 without the member schema"),
        (httpx.Response(404, json={"error_code": 404, "message": "no"}), "ConfigError: "),
        (httpx.Response(301, headers={"location": "http://x"}), "it answers 301 without"),
        (httpx.Response(200, content=b" " * 5_000_000), "with more than 4194304 bytes"),
    ],
)
async def test_what_does_not_answer_as_a_registry_ends_within_a_bound(
    reply: httpx.Response | Exception, told: str
) -> None:
    clock = [0.0]
    assert told in await answered(reply, clock)
    assert clock[0] <= 30
