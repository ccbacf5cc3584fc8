"""The parts of the documentation that are made from the code: `python -m headrace.docs` writes them anew.

A page holds a pair of comments, `<!-- made from the code: NAME -->` and `<!-- end: NAME -->`; what stands between them
is replaced. A test fails when a page differs from what would be written now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from prometheus_client.metrics import MetricWrapperBase

from core.settings.catalog import documented
from core.settings.models import Settings
from headrace.main import main
from schemas import codec
from schemas.topics import DAY_MS, HOUR_MS, Topic, declared, work_topic

PREFIX = "headrace_"
PAGES = ("README.md", "docs/reference/topics.md", "docs/operations.md")
_BLOCK = re.compile(r"(<!-- made from the code: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def topics_table() -> str:
    """List every topic: who writes it, who reads it, how long it is kept."""
    prefix = Settings().kafka.topic_prefix
    rows = (
        [
            f"`{prefix}{topic.name}`",
            topic.key,
            "P/3, 1 to 8" if topic.name.startswith("webhooks.retry.") else str(topic.partitions or "P"),
            _kept(topic),
            topic.written_by,
            topic.read_by,
            f"[{topic.schema}](#{topic.schema})" if topic.schema else "as it came",
        ]
        for topic in _topics()
    )
    return _table(["topic", "key", "partitions", "kept", "written by", "read by", "record"], rows)


def topics_overview() -> str:
    """List every topic in short."""
    prefix = Settings().kafka.topic_prefix
    rows = ([f"`{prefix}{topic.name}`", _kept(topic), topic.written_by, topic.read_by] for topic in _topics())
    return _table(["topic", "kept", "written by", "read by"], rows)


def topic_settings_table() -> str:
    """List what `headrace topics apply` sets on each topic."""
    kafka = Settings().kafka
    found = [
        (topic, topic.configs(max_message_bytes=kafka.max_message_bytes, min_insync_replicas=kafka.min_insync_replicas))
        for topic in _topics()
    ]
    names = list(dict.fromkeys(name for _, configs in found for name in configs))
    rows = ([f"`{topic.name}`", *(configs.get(name, "") for name in names)] for topic, configs in found)
    return _table(["topic", *names], rows)


def records_reference() -> str:
    """Describe every record field by field."""
    parts = []
    for number, entry in codec.registry().items():
        schema = json.loads(codec.schema_text(number))
        rows = ([f"`{name}`", kind, text] for name, kind, text in _fields(schema, {}))
        head = f"### {entry['name']}\n\nSchema id {number}. {schema['doc']}"
        parts.append(f"{head}\n\n{_table(['field', 'type', 'meaning'], rows)}")
    return "\n".join(parts)


def settings_table() -> str:
    """List every setting; the members of tables have no variable."""
    rows = (
        [
            f"`{one.dotted}`",
            f"`{one.name}`" if one.name else "",
            f"`{one.default}`" if one.default else "",
            f"{one.description} {one.allowed[0].upper()}{one.allowed[1:]}.",
        ]
        for one in documented()
    )
    return _table(["setting", "variable", "default", "meaning"], rows)


def commands_table() -> str:
    """List every command with its options."""
    rows = ([f"`{path}`", _options(command), command.get_short_help_str(200)] for path, command in _commands())
    return _table(["command", "options", "what it does"], rows)


def api_table() -> str:
    """List every route."""
    from ingress.api.openapi_document import document  # noqa: PLC0415 - the commands have no need of it

    rows = (
        [f"`{method.upper()} {path}`", operation["summary"]]
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    )
    return _table(["route", "what it does"], rows)


def metrics_table() -> str:
    """List what each role counts."""
    # Imported here, because each role's module registers its counters for the whole process.
    from dispatcher import metrics as dispatcher  # noqa: PLC0415
    from ingress.metrics import Metrics  # noqa: PLC0415
    from streams import metrics as streams  # noqa: PLC0415

    ingress = Metrics()
    ingress.watch_waiting(int)
    ingress.watch_polls(int)
    ingress.watch_tail("answers", float)
    found = [("ingress", family) for family in ingress.registry.collect() if family.name.startswith(PREFIX)]
    for role, module in (("streams", streams), ("dispatcher", dispatcher)):
        collectors = [one for one in vars(module).values() if isinstance(one, MetricWrapperBase)]
        found += [(role, family) for one in collectors for family in one.collect()]
    rows = (
        [f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.type, role, family.documentation]
        for role, family in found
    )
    return _table(["metric", "type", "role", "meaning"], rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "topics": topics_table,
    "topics-overview": topics_overview,
    "topic-settings": topic_settings_table,
    "records": records_reference,
    "settings": settings_table,
    "commands": commands_table,
    "api": api_table,
    "metrics": metrics_table,
}


def renewed(text: str) -> str:
    """Return a page with its blocks made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}{match[3]}", text)


def _topics() -> Iterator[Topic]:
    """Yield the declared topics with 0 for P, those of a queue last, under the placeholder QUEUE."""
    yield from declared(partitions=0)
    for level in (0, 1):
        yield work_topic("QUEUE", level, partitions=Settings().kafka.work_partitions)


def _kept(topic: Topic) -> str:
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
    """Yield the records defined inside a type; one that was defined before is not told again."""
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


def _commands(command: click.Command = main, path: str = "headrace") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if (found := command.get_command(context, name)) is not None:
            yield from _commands(found, f"{path} {name}")


def _options(command: click.Command) -> str:
    named = (parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option))
    return " ".join(f"`{name}`" for name in named)


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def write(root: Path) -> list[str]:
    """Renew every page below a checkout; return the names of those that changed."""
    changed = []
    for name in PAGES:
        page = root / name
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")
            changed.append(name)
    return changed


if __name__ == "__main__":
    click.echo("\n".join(write(Path(__file__).parents[1])) or "nothing has changed")
