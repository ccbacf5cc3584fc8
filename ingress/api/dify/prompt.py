"""The prompt of a completion: the query, or the queue's template filled from the inputs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import InvalidRequest

QUERY = "query"
# Nothing but a bare name counts, so that JSON and code in a template stay as they are. One pass: a value that holds
# {another} name is text and is not filled again.
_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def prompt_of(inputs: Mapping[str, str | None], query: str, template: str | None) -> str:
    """Build the prompt; raises InvalidRequest naming the input that the template lacks.

    `inputs.query` goes before `query`. A template that has a place for the query is filled with it; one that has none
    is for requests without a query. Without both the inputs themselves are the prompt.
    """
    asked = inputs.get(QUERY) or query
    if template is not None and (not asked.strip() or QUERY in variables(template)):
        return _filled(template, {**inputs, QUERY: asked} if asked else inputs)
    if asked.strip():
        return asked
    given = [(name, text) for name, value in inputs.items() if (text := value or "").strip()]
    if not given:
        raise InvalidRequest("inputs must hold the text to complete, such as inputs.query", field="inputs")
    return given[0][1] if len(given) == 1 else "\n".join(f"{name}: {text}" for name, text in given)


def variables(template: str) -> list[str]:
    """List the names that a template is filled with, each once."""
    return list(dict.fromkeys(match[1] or match[2] for match in _PLACE.finditer(template)))


def _filled(template: str, inputs: Mapping[str, str | None]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in inputs:
            raise InvalidRequest(f"inputs.{name} is required by the prompt of this queue", field=f"inputs.{name}")
        return inputs[name] or ""

    return _PLACE.sub(value, template)
