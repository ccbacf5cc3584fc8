"""A schema registry that keeps the rules of Confluent's, in memory; behind a transport of httpx, or over HTTP.

Ids are global within a context; a schema with a given id is taken only in IMPORT mode (42205 otherwise) and never over
another schema; one without an id only in READWRITE mode. The same schema with the same id, twice, is fine.
"""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

Reply = tuple[int, dict[str, Any] | list[Any]]


class Refused(Exception):
    """An error of the registry."""

    def __init__(self, code: int, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status or code // 100
        self.body = {"error_code": code, "message": message}


@dataclass
class Context:
    """One space of ids and subjects."""

    schemas: dict[int, str] = field(default_factory=dict)
    subjects: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    modes: dict[str, str] = field(default_factory=dict)


@dataclass
class RegistryDouble:
    """The registry; what a test sets makes it misbehave."""

    url: str = "http://registry.example"
    contexts: dict[str, Context] = field(default_factory=lambda: defaultdict(Context))
    mode: str = "READWRITE"
    user: str | None = None
    """`name:password` that it wants; None: it is open."""
    has_modes: bool = True
    mutable: bool = True
    ignores_ids: bool = False
    deletes_modes: bool = True
    tells_modes: bool = True
    failures: int = 0
    """How many calls are still answered 503."""
    foreign_restores: int = 0
    """How often another one takes the mode IMPORT away before a schema comes."""
    calls: list[str] = field(default_factory=list)

    @property
    def main(self) -> Context:
        """The context that is meant when none is named."""
        return self.contexts[""]

    def changes(self) -> list[str]:
        """List the calls that write."""
        return [call for call in self.calls if not call.startswith("GET")]

    def put(self, schema_id: int, text: str, subject: str = "other-value", version: int = 1) -> None:
        """Have a schema from before."""
        self.main.schemas[schema_id] = stored(text)
        self.main.subjects[subject][version] = schema_id

    def transport(self) -> httpx.MockTransport:
        """Answer httpx without a socket, which is a hundred times as quick."""

        def handle(request: httpx.Request) -> httpx.Response:
            target = request.url.raw_path.decode()
            authorization = request.headers.get("authorization")
            status, told = self.answer(request.method, target, authorization, json.loads(request.content or b"{}"))
            return httpx.Response(status, json=told)

        return httpx.MockTransport(handle)

    def answer(self, method: str, target: str, authorization: str | None, body: dict[str, Any]) -> Reply:
        """Answer one call."""
        try:
            return self._answer(method, target, authorization, body)
        except Refused as refused:
            return refused.status, refused.body

    def _answer(self, method: str, target: str, authorization: str | None, body: dict[str, Any]) -> Reply:
        url = urlsplit(target)
        self.calls.append(f"{method} {url.path}")
        if self.failures:
            self.failures -= 1
            raise Refused(50003, "Error while forwarding the request to the primary", status=503)
        if self.user is not None and authorization != "Basic " + b64encode(self.user.encode()).decode():
            raise Refused(401, "Unauthorized", status=401)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        name = ""
        if parts[0] == "contexts":
            _, name, *parts = parts
        context, query = self.contexts[name], parse_qs(url.query)
        match method, *parts:
            case "GET", "schemas", "ids", number:
                return 200, {"schema": _schema(context, int(number))}
            case "GET", "subjects":
                return 200, sorted(context.subjects)
            case "GET", "subjects", subject, "versions", number:
                return 200, _version(context, subject, number)
            case "POST", "subjects", subject, "versions":
                return 200, {"id": self._register(context, subject, body)}
            case method, "mode", subject if self.has_modes:
                return self._mode(context, method, subject, body, query)
            case _, "mode", *_:
                raise Refused(405, "HTTP 405 Method Not Allowed", status=405)
        raise Refused(404, "HTTP 404 Not Found", status=404)

    def _register(self, context: Context, subject: str, body: dict[str, Any]) -> int:
        if self.foreign_restores:
            self.foreign_restores -= 1
            context.modes.pop(subject, None)
        text, given = stored(body["schema"]), None if self.ignores_ids else body.get("id")
        versions = context.subjects[subject]
        for schema_id in versions.values():
            if context.schemas[schema_id] == text and given in (None, schema_id):
                return schema_id
        wanted = "READWRITE" if given is None else "IMPORT"
        if context.modes.get(subject, self.mode) != wanted and not self.ignores_ids:
            raise Refused(42205, f"Subject {subject} is not in {wanted.lower()} mode")
        known = {held: number for number, held in context.schemas.items()}
        schema_id = known.get(text, max(context.schemas, default=0) + 1) if given is None else int(given)
        if context.schemas.get(schema_id, text) != text:
            raise Refused(42205, f"Overwrite new schema with id {schema_id} is not permitted.")
        context.schemas[schema_id] = text
        versions[body.get("version") or max(versions, default=0) + 1] = schema_id
        return schema_id

    def _mode(
        self, context: Context, method: str, subject: str, body: dict[str, Any], query: dict[str, list[str]]
    ) -> Reply:
        own = context.modes.get(subject)
        if not self.tells_modes:
            raise Refused(40301, "User is denied operation Read on this server", status=403)
        if method == "GET":
            if own is None and query.get("defaultToGlobal") != ["true"]:
                raise Refused(40409, f"Subject '{subject}' does not have subject-level mode configured")
            return 200, {"mode": own or self.mode}
        if not self.mutable:
            raise Refused(42205, "Mode changes are not allowed")
        if method == "PUT":
            if body["mode"] == "IMPORT" and context.subjects.get(subject) and query.get("force") != ["true"]:
                raise Refused(42205, "Cannot import since found existing subjects")
            context.modes[subject] = body["mode"]
            return 200, body
        if not self.deletes_modes:
            raise Refused(405, "HTTP 405 Method Not Allowed", status=405)
        if own is None:
            raise Refused(40401, f"Subject '{subject}' not found.")
        return 200, {"mode": context.modes.pop(subject)}


def stored(text: str) -> str:
    """Return a schema as a registry keeps it: without the line breaks of its file."""
    return json.dumps(json.loads(text), separators=(",", ":"))


def _schema(context: Context, number: int) -> str:
    if number not in context.schemas:
        raise Refused(40403, f"Schema {number} not found")
    return context.schemas[number]


def _version(context: Context, subject: str, number: str) -> dict[str, Any]:
    versions = context.subjects.get(subject)
    if not versions:
        raise Refused(40401, f"Subject '{subject}' not found.")
    version = max(versions) if number == "latest" else int(number)
    if version not in versions:
        raise Refused(40402, f"Version {version} not found.")
    schema_id = versions[version]
    return {"subject": subject, "version": version, "id": schema_id, "schema": context.schemas[schema_id]}


@contextmanager
def schema_registry(double: RegistryDouble) -> Iterator[None]:
    """Serve a registry on a port of its own, from threads: stock clients and commands block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            with lock:
                status, told = double.answer(self.command, self.path, self.headers.get("authorization"), body)
            raw = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - names of the standard library

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        double.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="schema registry")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
