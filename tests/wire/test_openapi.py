"""The OpenAPI document is complete: examples everywhere, and errors in the form of their dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ingress.api.openapi import document
from tests.support.openapi_operations import Operation, in_dialect, operations

ALL = list(operations())
EMPTY = {("GET", "/v1/queue/{queue}/metadata")}


@pytest.mark.parametrize("operation", ALL, ids=str)
def test_every_body_has_an_example_and_every_error_its_dialect(operation: Operation) -> None:
    described = operation.described
    assert described["summary"]
    assert operation.submits or not operation.secured or "422" not in described["responses"]
    bodies = [*described.get("requestBody", {}).get("content", {}).values()]
    assert bodies or operation.method in ("GET", "DELETE") or operation.path.endswith("/cancel")
    for status, answer in described["responses"].items():
        assert answer["description"]
        bodies += answer["content"].values() if status != "204" else []
        if status >= "400" and operation.path != "/readyz":
            for shown in (answer["content"]["application/json"],):
                told = (
                    [shown["example"]] if "example" in shown else [one["value"] for one in shown["examples"].values()]
                )
                for one in told:
                    assert in_dialect(operation.path, httpx.Response(int(status), json=one)), (status, one)
    for body in bodies:
        assert "example" in body or body.get("examples") or "schema" in body


@pytest.mark.parametrize("operation", ALL, ids=str)
def test_every_parameter_is_described_and_every_name_in_the_path_is_one(operation: Operation) -> None:
    parameters = operation.described.get("parameters", ())
    assert all(one["description"] and one["schema"] for one in parameters)
    named = {one["name"] for one in parameters if one["in"] == "path"}
    assert named == {part.strip("{}") for part in operation.path.split("/") if part.startswith("{")}
    assert all(one["required"] for one in parameters if one["in"] == "path")


def test_operations_have_names_of_their_own() -> None:
    names = [one.described["operationId"] for one in ALL if "operationId" in one.described]
    assert sorted(names) == sorted(set(names))


def test_the_document_is_json_and_uses_every_schema() -> None:
    text = json.dumps(document())
    for name in document()["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = [*value.values()]
    if isinstance(value, list):
        for one in value:
            yield from _nodes(one)


def test_no_default_contradicts_its_type() -> None:
    wrong = [one for one in _nodes(document()) if one.get("default", 0) is None and isinstance(one.get("type"), str)]
    assert wrong == []
