"""What the descriptions of the admin routes share."""

from __future__ import annotations

from typing import Any

SECURITY = [{"key": ["admin"]}]
TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
TRUTH = {"type": "boolean"}
TIME = {"type": "string", "format": "date-time"}
WAIT = {"type": "integer", "minimum": 0, "maximum": 60, "description": "Seconds to wait for the end."}
LEVEL = {"enum": ["online", "offline", 0, 1], "description": "Without it both."}
CURSOR = {"type": ["string", "null"], "description": "For the parameter after of the next page; null at the end."}


def listed(item: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Describe a page of things."""
    properties = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": item},
        "has_more": TRUTH,
        "next_cursor": CURSOR,
    }
    shown = {"object": "list", "data": [example], "has_more": False, "next_cursor": None}
    return {"schema": {"type": "object", "properties": properties}, "example": shown}


def operation(name: str, summary: str, description: str, **more: Any) -> dict[str, Any]:
    """Describe an operation for administrators."""
    return {"operationId": name, "summary": summary, "description": description, "security": SECURITY, **more}


def answer(description: str, content: dict[str, Any]) -> dict[str, Any]:
    """Describe an answer."""
    return {"description": description, "content": {"application/json": content}}


def error(description: str) -> dict[str, Any]:
    """Describe a refusal; its example is made by the code that answers."""
    return answer(description, {})


def body(properties: dict[str, Any], example: dict[str, Any], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe the body of a request."""
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    return {"content": {"application/json": {"schema": schema, "example": example}}}


def query(name: str, description: str, schema: dict[str, Any] = TEXT) -> dict[str, Any]:
    """Describe a parameter of a query."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def path(name: str, description: str) -> dict[str, Any]:
    """Describe a parameter in a path."""
    return {"name": name, "in": "path", "required": True, "description": description, "schema": TEXT}


def paging(most: int) -> list[dict[str, Any]]:
    """Describe the parameters of a page."""
    limit = {"type": "integer", "minimum": 1, "maximum": most}
    return [
        query("after", "The next_cursor of the page before."),
        query("limit", "Most entries of a page.", limit),
    ]
