"""The AsyncAPI document: held to the structure of AsyncAPI 3 and to the topics it is made from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest

from schemas import codec, topics
from schemas.asyncapi import document
from schemas.task_json import KNOWN, RESERVED

MADE = document(version="1.2.3", prefix="t.", partitions=6, work_partitions=4, replicas=3, bootstrap="k:9092")
NAME = re.compile(r"[A-Za-z0-9._-]+")
ALLOWED = {
    "root": {"asyncapi", "info", "defaultContentType", "servers", "channels", "operations", "components"},
    "channel": {"address", "description", "messages", "parameters", "bindings"},
    "operation": {"action", "channel", "messages"},
    "message": {"name", "title", "summary", "contentType", "headers", "payload", "bindings", "x-schema-id"},
}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (target for name, target in value.items() if name == "$ref")
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolved(pointer: str) -> Any:
    """Follow a reference as JSON pointers are followed."""
    value: Any = MADE
    for part in pointer.removeprefix("#/").split("/"):
        value = value[part]
    return value


def test_the_root_is_that_of_asyncapi_3() -> None:
    assert MADE["asyncapi"] == "3.0.0"
    assert set(MADE) == ALLOWED["root"]
    assert {"title", "version"} <= set(MADE["info"])
    assert MADE["servers"]["kafka"] | {"description": ""} == {"host": "k:9092", "protocol": "kafka", "description": ""}
    assert "servers" not in document(version="1", prefix="", partitions=1, work_partitions=1)
    assert json.loads(json.dumps(MADE)) == MADE


def test_every_reference_leads_somewhere() -> None:
    found = [*references(MADE)]
    assert found
    for pointer in found:
        assert resolved(pointer)


@pytest.mark.parametrize("name", [*MADE["channels"]])
def test_a_channel_is_its_topic(name: str) -> None:
    channel = MADE["channels"][name]
    assert NAME.fullmatch(name)
    assert set(channel) <= ALLOWED["channel"]
    assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel.get("parameters", ()))
    kafka = channel["bindings"]["kafka"]
    assert kafka["partitions"] >= 1
    assert kafka["replicas"] == 3
    assert set(kafka["topicConfiguration"]["cleanup.policy"]) <= {"compact", "delete"}


def test_every_topic_has_a_channel_and_an_operation() -> None:
    declared = [*topics.declared(partitions=6), *(topics.work_topic("{queue}", n, partitions=4) for n in (0, 1))]
    assert {channel["address"] for channel in MADE["channels"].values()} == {f"t.{one.name}" for one in declared}
    used = {operation["channel"]["$ref"].rpartition("/")[2] for operation in MADE["operations"].values()}
    assert used == set(MADE["channels"])
    for name, operation in MADE["operations"].items():
        assert NAME.fullmatch(name)
        assert set(operation) == ALLOWED["operation"]
        assert operation["action"] in ("send", "receive")
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
    assert MADE["operations"]["receiveTasksOnline"]["action"] == "receive"
    assert MADE["operations"]["sendResultsOffline"]["action"] == "send"


@pytest.mark.parametrize("name", [*MADE["components"]["messages"]])
def test_a_message_has_the_newest_schema(name: str) -> None:
    message = MADE["components"]["messages"][name]
    assert set(message) <= ALLOWED["message"]
    assert message["headers"]["type"] == "object"
    if "x-schema-id" not in message:
        return
    assert message["x-schema-id"] == codec.latest(name)
    assert message["payload"]["schemaFormat"].startswith("application/vnd.apache.avro")
    assert fastavro.parse_schema(message["payload"]["schema"])
    assert message["bindings"]["kafka"]["schemaIdPayloadEncoding"] == "confluent"


def test_a_task_as_json_has_the_members_that_are_read() -> None:
    payload = MADE["components"]["messages"]["task-json"]["payload"]
    assert set(payload["properties"]) == KNOWN - {*RESERVED}
    assert payload["required"] == ["queue", "endpoint", "data"]
    assert all(member["description"] for member in payload["properties"].values())
