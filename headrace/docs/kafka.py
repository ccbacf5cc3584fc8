"""Topics, their settings, and the fields of every record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from core.settings.models import Settings
from headrace.docs.markdown import table
from schemas import codec
from schemas.topics import DAY_MS, HOUR_MS, Topic, declared, work_topic


def topics_table() -> str:
    """List every topic: key, partitions, retention, writers, readers, record."""
    prefix = Settings().kafka.topic_prefix
    rows = (
        [
            f"`{prefix}{topic.name}`",
            topic.key,
            "P/3, 1 to 8" if topic.name.startswith("webhooks.retry.") else str(topic.partitions or "P"),
            _retention(topic),
            topic.written_by,
            topic.read_by,
            f"[{topic.schema}](#{topic.schema})" if topic.schema else "unchanged",
        ]
        for topic in _topics()
    )
    return table(["topic", "key", "partitions", "retention", "written by", "read by", "record"], rows)


def topic_settings_table() -> str:
    """List the settings that `headrace topics apply` gives each topic."""
    kafka = Settings().kafka
    found = [
        (topic, topic.configs(max_message_bytes=kafka.max_message_bytes, min_insync_replicas=kafka.min_insync_replicas))
        for topic in _topics()
    ]
    names = list(dict.fromkeys(name for _, configs in found for name in configs))
    rows = ([f"`{topic.name}`", *(configs.get(name, "") for name in names)] for topic, configs in found)
    return table(["topic", *names], rows)


def records_reference() -> str:
    """Describe every record field by field, its newest schema first."""
    by_name: dict[str, list[int]] = {}
    for number, entry in codec.registry().items():
        by_name.setdefault(entry["name"], []).insert(0, number)
    parts = []
    for name, numbers in by_name.items():
        for number in numbers:
            schema = json.loads(codec.schema_text(number))
            rows = ([f"`{field}`", kind, text] for field, kind, text in _fields(schema, {}))
            heading = f"### {name}" if number == numbers[0] else f"#### {name}, schema id {number}"
            parts.append(
                f"{heading}\n\nSchema id {number}. {schema['doc']}\n\n{table(['field', 'type', 'meaning'], rows)}"
            )
    return "\n".join(parts)


def _topics() -> Iterator[Topic]:
    """Yield the declared topics with 0 for P, those of a queue last, under the placeholder QUEUE."""
    yield from declared(partitions=0)
    for level in (0, 1):
        yield work_topic("QUEUE", level, partitions=Settings().kafka.work_partitions)


def _retention(topic: Topic) -> str:
    if topic.retention_ms is None:
        return "newest per key"
    days, rest = divmod(topic.retention_ms, DAY_MS)
    return f"{days} d" if not rest else f"{topic.retention_ms // HOUR_MS} h"


def _fields(schema: Mapping[str, Any], named: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Walk the fields, nested records included, as path, type and meaning."""
    for field in schema["fields"]:
        name = path + field["name"]
        yield name, _kind(field["type"], named), field["doc"]
        for inner in _records(field["type"], named):
            yield from _fields(inner, named, f"{name}.")


def _records(kind: Any, named: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the records defined inside a type; one that was defined before is not repeated."""
    match kind:
        case list():
            for each in kind:
                yield from _records(each, named)
        case {"type": "array", "items": items}:
            yield from _records(items, named)
        case {"type": "record", "name": name} if name not in named:
            named[name] = kind
            yield kind


def _kind(kind: Any, named: Mapping[str, Any]) -> str:
    match kind:
        case list():
            return " or ".join(_kind(each, named) for each in kind)
        case {"type": "array", "items": items}:
            return f"list of {_kind(items, named)}"
        case {"type": "enum", "symbols": symbols}:
            return ", ".join(symbols)
        case {"name": name}:
            return str(name)
        case {"type": plain}:
            return str(plain)
        case _:
            return str(kind)
