"""The operations of the OpenAPI document as requests: what tests of every route go by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx

from ingress.api.batches.routes import STRINGS
from ingress.api.openapi import document

IDS = {"task_id", "message_id"}
"""Path parameters that name a task."""
OTHERS = {
    "batch_id": "batch_01b3d0b7b1d5e07c800003e000000001",
    "file_id": "file-00000001c0ffee00c0ffee00c0ffee00",
    "letter_id": "0-0",
    "model": "smollm2",
    "queue": "chat",
    "queue_level": "chat:0",
    "schema_id": "1",
    "subject": "headrace.tasks.online-value",
    "version": "1",
}
"""Path parameters that name something which every key may see."""
REGISTRY = ("/subjects", "/schemas", "/config", "/mode")
DIFY = ("/completion-messages", "/files/upload", "/messages", "/parameters", "/info", "/meta")


class Operation(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    described: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def secured(self) -> bool:
        """Tell whether it needs a key."""
        return bool(self.described.get("security", True))

    @property
    def names_a_task(self) -> bool:
        """Tell whether its path holds the id of a task."""
        return any(f"{{{name}}}" in self.path for name in IDS)

    @property
    def submits(self) -> bool:
        """Tell whether it counts against its key's limit: it makes a task, a batch or a file."""
        return "429" in self.described["responses"]

    @property
    def json_examples(self) -> list[Any]:
        """Return the examples of its JSON body."""
        content = self.described.get("requestBody", {}).get("content", {})
        return examples(content["application/json"]) if "application/json" in content else []

    @property
    def user(self) -> str | None:
        """Return the end user that the example names."""
        body = self._body().get("json")
        return body.get("user") if isinstance(body, dict) else None

    def url(self, task_id: str = "TASK-1-0-C-260131120000-0003-017000") -> str:
        """Return the path with its parameters filled in."""
        values = OTHERS | dict.fromkeys(IDS, task_id)
        return self.path.format(**values)

    def request(self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str]) -> httpx.Request:
        """Build a request as the document's first example has it."""
        return client.build_request(self.method, url, headers={"authorization": "", **headers}, **self._body())

    def _body(self) -> dict[str, Any]:
        content = self.described.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            return {"json": examples(content["application/json"])[0]}
        if "multipart/form-data" in content:
            members = content["multipart/form-data"]["schema"]
            if "$ref" in members:
                members = document()["components"]["schemas"][members["$ref"].rpartition("/")[2]]
            files = {name for name, schema in members["properties"].items() if is_file(schema)}
            kinds = {name: ("a.wav", b"RIFF") if name == "file" else ("a.png", b"\x89PNG") for name in files}
            return {"files": kinds, "data": {"model": "smollm2", "prompt": "A hat."}}
        return {}


def is_file(schema: Mapping[str, Any]) -> bool:
    """Tell whether a member of a form is a file, or may be several."""
    return "binary" in str(schema) or "contentMediaType" in str(schema)


def examples(content: Mapping[str, Any]) -> list[Any]:
    """Return the examples of a body."""
    if "example" in content:
        return [content["example"]]
    return [named["value"] for named in content.get("examples", {}).values()] or [{}]


def operations() -> Iterator[Operation]:
    """Yield every operation."""
    for path, methods in document()["paths"].items():
        for method, described in methods.items():
            yield Operation(method.upper(), path, described)


def in_dialect(path: str, response: httpx.Response) -> bool:
    """Tell whether an error has the form that the clients of a path can read."""
    body = response.json()
    if f"{path}/".startswith("/v1/batches/"):
        return batch_problem(body, response.status_code)
    if path.startswith(REGISTRY):
        return set(body) == {"error_code", "message"} and str(body["error_code"]).startswith(str(response.status_code))
    if path.removeprefix("/v1").startswith(DIFY):
        return set(body) - {"params"} == {"code", "message", "status"} and body["status"] == response.status_code
    if f"{path}/".startswith(("/v1/", "/queue/")) and not f"{path}/".startswith("/v1/queue/"):
        return set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    return set(body) - {"field"} == {"code", "message", "timestamp"} and body["code"] == response.status_code


def batch_problem(body: Any, status: int) -> bool:
    """Tell whether an error has one of the two forms that the batch routes have."""
    if status in STRINGS and isinstance(body, str):
        return True
    return set(body) in ({"error"}, {"code", "message", "data", "error"}) and set(body["error"]) == {
        "message",
        "type",
        "param",
        "code",
    }
