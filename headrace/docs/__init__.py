"""The generated parts of the documentation: `python -m headrace.docs` renews them.

A page holds pairs of comments, `<!-- generated: NAME -->` and `<!-- end: NAME -->`; the text between them is
replaced by the block of that name. A test fails when a page differs from what would be written now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from headrace.docs import command_line, errors, http_api, kafka, log_events, metrics, settings

BLOCKS: Mapping[str, Callable[[], str]] = {
    "topics": kafka.topics_table,
    "topic-settings": kafka.topic_settings_table,
    "records": kafka.records_reference,
    "settings": settings.settings_reference,
    "commands": command_line.commands_table,
    "command-reference": command_line.commands_reference,
    "http-api": http_api.routes_table,
    "http-api-reference": http_api.routes_reference,
    "http-api-objects": http_api.objects_reference,
    "error-codes": errors.error_codes_table,
    "outcome-codes": errors.outcome_codes_table,
    "metrics": metrics.metrics_table,
    "log-events": log_events.log_events_table,
}
"""Name of a generated block → the function that writes it."""
_BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def renewed(text: str) -> str:
    """Return a page with its generated blocks written again; KeyError for a name that is not in BLOCKS."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}{match[3]}", text)


def pages(root: Path) -> Iterator[Path]:
    """Yield every page of a checkout that may hold generated blocks: the README and all of docs/."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))


def write(root: Path) -> list[str]:
    """Renew every page of a checkout; return the relative paths of those that changed."""
    changed = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")
            changed.append(str(page.relative_to(root)))
    return changed
