"""The events of the logs, read from the logging calls of the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from headrace.docs.markdown import sources, string_keys, table

LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
ROLES = {
    "core": "any role",
    "ingress": "ingress",
    "streams": "streams",
    "dispatcher": "dispatcher",
    "compose": "`headrace up`",
    "headrace": "command line",
}
"""Package → who writes its lines."""


class LogEvent(NamedTuple):
    """One logging call: its event, level, package, text with placeholders, and further fields."""

    event: str
    level: str
    package: str
    message: str
    fields: tuple[str, ...]


def log_events() -> list[LogEvent]:
    """Find every logging call that has an `event`, sorted by event."""
    return sorted({found for package, tree in sources() for found in _calls(package, tree)})


def log_events_table() -> str:
    """List the events with level, role, text and fields."""
    rows = (
        [f"`{one.event}`", one.level, ROLES[one.package], one.message, " ".join(f"`{name}`" for name in one.fields)]
        for one in log_events()
    )
    return table(["event", "level", "written by", "message", "fields"], rows)


def _calls(package: str, tree: ast.Module) -> Iterator[LogEvent]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        extra = next((string_keys(one.value) for one in node.keywords if one.arg == "extra"), {})
        level = LEVELS.get(node.func.attr, "varies")
        for event in _strings(extra["event"]) if "event" in extra else ():
            fields = tuple(name for name in extra if name != "event")
            yield LogEvent(event, level, package, _message(node), fields)


def _message(call: ast.Call) -> str:
    """Return the text of a logging call with … for what is filled in."""
    texts = [text for argument in call.args for text in _strings(argument)]
    return texts[0].replace("%s", "…").replace("%d", "…").replace("%r", "…").replace("%.1f", "…") if texts else "…"


def _strings(node: ast.expr) -> list[str]:
    """Return the literal strings that an expression can be: one, or both sides of a condition."""
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.IfExp(body=one, orelse=other):
            return [*_strings(one), *_strings(other)]
        case _:
            return []
