"""The AsyncAPI document: all topics with their records, generated from the declared topics and the .avsc files. Pure.

Operations follow AsyncAPI 3, from the application's side: Headrace receives tasks and worker events, and sends
everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from schemas import codec, topics
from schemas.task_json import CLOCKS, MODES, RESERVED
from schemas.topics import Topic, declared, work_topic

AVRO = "application/vnd.apache.avro+json;version=1.9.0"
BINDING = "0.5.0"
RECEIVED = (topics.TASKS, topics.EVENTS)
"""Topics that other applications may write, by the first part of the name."""
HEADERS = {
    "ce_id": "CloudEvents id.",
    "ce_type": "CloudEvents type, such as io.headrace.result.completed.",
    "ce_source": "CloudEvents source.",
    "ce_time": "CloudEvents time, RFC 3339.",
    "ce_specversion": "1.0",
    "content-type": "application/avro",
    "traceparent": "W3C trace context.",
    "x-queue": "Queue.",
    "x-level": "0 online, 1 offline.",
    "x-owner": "Tenant.",
    "x-model": "Model, on results and usage.",
    "x-deadline-ms": "Epoch ms.",
    "x-attempt": "Number of the attempt.",
}
DEAD_LETTER_HEADERS = {
    "x-reason": "Why the record could not be processed.",
    "x-field": "Invalid field.",
    "x-topic": "Topic of the original record.",
    "x-partition": "Partition of the original record.",
    "x-offset": "Offset of the original record.",
    "x-attempt": "Number of the last attempt; 0 if there was none.",
}
DEAD_LETTER, TASK_JSON = "dead-letter", "task-json"
JSON_KINDS = {"string": "string", "int": "integer", "long": "integer", "boolean": "boolean"}
QUEUE = {"description": "Name of the queue."}
Json = dict[str, Any]


def document(
    *,
    version: str,
    prefix: str,
    partitions: int,
    work_partitions: int,
    replicas: int = 1,
    max_message_bytes: int = 1_048_576,
    min_insync_replicas: int = 1,
    bootstrap: str | None = None,
) -> Json:
    """Return the document; without `bootstrap` it names no server."""
    every = [*declared(partitions=partitions), *(work_topic("{queue}", n, partitions=work_partitions) for n in (0, 1))]

    def channel(topic: Topic) -> Json:
        configs = topic.configs(max_message_bytes=max_message_bytes, min_insync_replicas=min_insync_replicas)
        return _channel(topic, prefix=prefix, replicas=replicas, configs=configs)

    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headrace",
            "version": version,
            "description": "The Kafka side of an inference task queue: every task ends with exactly one record in "
            "results.LEVEL. Records are Avro in Confluent framing; the ingress has their schemas at /schemas/ids/{id}.",
        },
        "defaultContentType": "application/avro",
        **({"servers": {"kafka": _server(bootstrap)}} if bootstrap else {}),
        "channels": {_name(topic): channel(topic) for topic in every},
        "operations": {_operation_name(topic): _operation(topic) for topic in every},
        "components": {"messages": dict(_messages(every))},
    }


def _server(bootstrap: str) -> Json:
    return {"host": bootstrap, "protocol": "kafka", "description": "Bootstrap servers."}


def _name(topic: Topic) -> str:
    return topic.name.replace("{queue}.", "")


def _messages_of(topic: Topic) -> list[str]:
    names = [topic.schema or DEAD_LETTER]
    return [*names, TASK_JSON] if topic.schema == "task" else names


def _channel(topic: Topic, *, prefix: str, replicas: int, configs: dict[str, str]) -> Json:
    return {
        "address": prefix + topic.name,
        "description": f"Written by: {topic.written_by}. Read by: {topic.read_by}. Key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages_of(topic)},
        **({"parameters": {"queue": QUEUE}} if "{queue}" in topic.name else {}),
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "replicas": replicas,
                "topicConfiguration": {
                    name: _config(name, value) for name, value in configs.items() if name in SHOWN_CONFIGS
                },
                "bindingVersion": BINDING,
            }
        },
    }


SHOWN_CONFIGS = ("cleanup.policy", "retention.ms", "max.message.bytes")
"""Topic settings that are shown; the binding allows only some."""


def _config(name: str, value: str) -> list[str] | int:
    return value.split(",") if name == "cleanup.policy" else int(value)


def _operation_name(topic: Topic) -> str:
    words = _name(topic).replace("-", ".").split(".")
    return _action(topic) + "".join(word.capitalize() for word in words)


def _action(topic: Topic) -> str:
    return "receive" if topic.name.split(".", maxsplit=1)[0] in RECEIVED else "send"


def _operation(topic: Topic) -> Json:
    channel = f"#/channels/{_name(topic)}"
    return {
        "action": _action(topic),
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"} for name in _messages_of(topic)],
    }


def _messages(every: Iterable[Topic]) -> Iterable[tuple[str, Json]]:
    for name in sorted({topic.schema for topic in every if topic.schema is not None}):
        schema_id = codec.latest(name)
        schema = json.loads(codec.schema_text(schema_id))
        yield (
            name,
            {
                "name": name,
                "title": name.capitalize(),
                "summary": schema["doc"],
                "contentType": "application/avro",
                "headers": _headers(HEADERS),
                "payload": {"schemaFormat": AVRO, "schema": schema},
                "bindings": {
                    "kafka": {
                        "key": {"type": "string", "description": "Task id, unless the channel says otherwise."},
                        "schemaIdLocation": "payload",
                        "schemaIdPayloadEncoding": "confluent",
                        "bindingVersion": BINDING,
                    }
                },
                "x-schema-id": schema_id,
            },
        )
    yield (
        TASK_JSON,
        {
            "name": TASK_JSON,
            "title": "Task as JSON",
            "summary": "A new task for producers that have no Avro at hand.",
            "contentType": "application/json",
            "headers": _headers(HEADERS),
            "payload": _task_json(),
        },
    )
    yield (
        DEAD_LETTER,
        {
            "name": DEAD_LETTER,
            "title": "Dead letter",
            "summary": "A record that could not be processed; its key, value and headers are unchanged.",
            "contentType": "application/octet-stream",
            "headers": _headers(DEAD_LETTER_HEADERS),
        },
    )


def _headers(described: dict[str, str]) -> Json:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in described.items()},
    }


def _task_json() -> Json:
    """Describe the members of a task that is written as JSON, in the words of the Avro record."""
    fields = json.loads(codec.schema_text(codec.latest("task")))["fields"]
    plain = [one for one in fields if one["name"] not in RESERVED]
    members = {one["name"]: {**_json_kind(one["type"]), "description": one["doc"]} for one in plain}
    members["mode"] = members["response_mode"] = {"enum": [*MODES], "description": members["mode"]["description"]}
    members["data"] = {"type": ["object", "string"], "description": "The upstream's request body."}
    for name, seconds in CLOCKS.items():
        members[seconds] = {"type": "integer", "minimum": 0, "description": f"{name}, in seconds."}
    return {
        "type": "object",
        "required": ["queue", "endpoint", "data"],
        "properties": members,
        "additionalProperties": False,
    }


def _json_kind(kind: Any) -> Json:
    match kind:
        case list():
            return {"type": [*dict.fromkeys(JSON_KINDS.get(one, "string") for one in kind if one != "null"), "null"]}
        case {"type": "array"}:
            return {"type": "array", "items": {"type": "string"}}
        case {"symbols": symbols}:
            return {"enum": symbols}
        case _:
            return {"type": JSON_KINDS.get(str(kind), "string")}
