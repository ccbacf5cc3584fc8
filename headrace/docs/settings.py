"""Every setting with its variable, default and range, a table per section.

Apart, because each generated part of the pages has a module of its own.
"""

from __future__ import annotations

from itertools import groupby

from core.settings.catalog import Variable, documented, sections
from headrace.docs.markdown import table

GENERAL = "general"
TABLES = ("models", "queues")
ABOUT = {
    GENERAL: "Settings outside any section.",
    "kafka": "The connection to Kafka, the layout of the topics, and an external schema registry.",
    "ingress": "The HTTP API: address, limits, time-outs.",
    "auth": "API keys.",
    "streams": "The scheduler.",
    "dispatcher": "The inference consumers.",
    "upstream": "The model servers.",
    "webhooks": "Webhooks and their signatures.",
    "direct": "Tasks that producers write to Kafka themselves.",
    "storage": "The object store for large bodies.",
    "dify": "File uploads of the Dify-compatible API.",
    "batches": "Files and batches.",
    "local": "The local stack of `headrace up`.",
    "log": "Logs.",
    "models": "Prices and defaults by model: one table `[models.NAME]` for each.",
    "queues": "Defaults by queue: one table `[queues.NAME]` for each.",
}
"""Section → its lead on the page; a section without one has none."""


def settings_reference() -> str:
    """Describe every setting; the members of the tables `models` and `queues` have no variable."""
    return "\n".join(_section(name, list(rows)) for name, rows in groupby(documented(), key=_section_of))


def _section_of(variable: Variable) -> str:
    name = variable.dotted.partition(".")[0]
    return name if name in TABLES or name in sections() else GENERAL


def _section(name: str, variables: list[Variable]) -> str:
    rows = (
        [
            f"`{one.dotted}`",
            f"`{one.name}`" if one.name else "",
            f"`{one.default}`" if one.default else "",
            f"{one.description} {one.allowed[0].upper()}{one.allowed[1:]}.",
        ]
        for one in variables
    )
    parts = [f"## {name}", ABOUT.get(name, ""), table(["setting", "variable", "default", "meaning"], rows)]
    return "\n\n".join(part for part in parts if part)
