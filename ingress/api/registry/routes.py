"""The read side of Confluent's schema registry, at the root: with it stock tools decode every topic.

Open to everybody while the ingress listens on loopback, for most of these tools are set up without a key; elsewhere
basic auth with an API key as the password, or the key as a bearer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.errors import InvalidRequest, Unauthorized
from core.settings.loader import is_loopback
from ingress.api.registry.responses import (
    BAD_SCHEMA,
    BAD_VERSION,
    MEDIA_TYPE,
    NO_SCHEMA,
    NO_SETTING,
    NO_VERSION,
    READ_ONLY,
    answer,
    failure,
    no_schema,
    no_subject,
    shown,
)
from ingress.api.registry.subjects import Subjects, chosen, holding, matching, page
from ingress.auth.keys import Caller
from ingress.http.body import read_body
from ingress.runtime import Ingress
from schemas.codec import registry, schema_text
from schemas.subjects import NoSchema, Version

MAX_BODY = 262_144
COMPATIBILITY = "BACKWARD"
MODE = "READONLY"
Answering = Callable[[Request, Caller | None], Awaitable[Response]]


class RegistryRoutes:
    """The registry of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        settings = ingress.settings
        self._ingress = ingress
        self._open = is_loopback(settings.ingress.host)
        self._subjects = Subjects(prefix=settings.kafka.topic_prefix, reply_topics=settings.direct.reply_topics)

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/subjects", self._guarded(self.subjects), methods=["GET"]),
            Route("/subjects/{subject}", self._guarded(self.look_up), methods=["POST"]),
            Route("/subjects/{subject}/versions", self._guarded(self.versions), methods=["GET", "POST"]),
            Route("/subjects/{subject}/versions/{version}", self._guarded(self.version), methods=["GET"]),
            Route("/subjects/{subject}/versions/{version}/schema", self._guarded(self.text), methods=["GET"]),
            Route(
                "/subjects/{subject}/versions/{version}/referencedby", self._guarded(self.referenced), methods=["GET"]
            ),
            Route("/schemas", self._guarded(self.schemas), methods=["GET"]),
            Route("/schemas/types", self._guarded(self.types), methods=["GET"]),
            Route("/schemas/ids/{schema_id}", self._guarded(self.schema), methods=["GET"]),
            Route("/schemas/ids/{schema_id}/schema", self._guarded(self.schema_alone), methods=["GET"]),
            Route("/schemas/ids/{schema_id}/subjects", self._guarded(self.schema_subjects), methods=["GET"]),
            Route("/schemas/ids/{schema_id}/versions", self._guarded(self.schema_versions), methods=["GET"]),
            Route("/config", self._guarded(self.config), methods=["GET"]),
            Route("/config/{subject}", self._guarded(self.config_of), methods=["GET"]),
            Route("/mode", self._guarded(self.mode), methods=["GET"]),
            Route("/mode/{subject}", self._guarded(self.mode), methods=["GET"]),
        ]

    async def subjects(self, request: Request, caller: Caller | None) -> Response:
        """List the subjects."""
        return answer(page(self._named(request, caller), *_bounds(request)))

    async def versions(self, request: Request, caller: Caller | None) -> Response:
        """List the numbers of a subject's versions, or take a schema."""
        if request.method == "POST":
            return await self.register(request, caller)
        found = self._subjects.versions(subject := request.path_params["subject"])
        if not found:
            return no_subject(subject)
        numbers = [] if _asked(request, "deletedOnly") else [one.number for one in found]
        return answer(page(numbers, *_bounds(request)))

    async def version(self, request: Request, _: Caller | None) -> Response:
        """Show one version."""
        found = self._version(request)
        return found if isinstance(found, Response) else answer(shown(request.path_params["subject"], found))

    async def text(self, request: Request, _: Caller | None) -> Response:
        """Show the schema of one version alone."""
        found = self._version(request)
        return found if isinstance(found, Response) else Response(found.text, media_type=MEDIA_TYPE)

    async def referenced(self, request: Request, _: Caller | None) -> Response:
        """List the schemas that refer to a version: ours refer to none."""
        found = self._version(request)
        return found if isinstance(found, Response) else answer([])

    async def schemas(self, request: Request, caller: Caller | None) -> Response:
        """List every version of every subject."""
        latest = _asked(request, "latestOnly")
        listed = [
            shown(subject, one)
            for subject in self._named(request, caller)
            for one in self._subjects.versions(subject)[-1 if latest else 0 :]
        ]
        return answer(page(listed, *_bounds(request)))

    async def look_up(self, request: Request, _: Caller | None) -> Response:
        """Find the version that a schema's text is."""
        found = await self._matching(request)
        if found is None:
            return failure(404, NO_SCHEMA, "Schema not found")
        return found if isinstance(found, Response) else answer(shown(request.path_params["subject"], found))

    async def register(self, request: Request, _: Caller | None) -> Response:
        """Tell the id of a schema that is there; nothing is added. Many producers ask in this way first."""
        found = await self._matching(request)
        if found is None:
            return failure(422, READ_ONLY, "The schemas come with Headrace; nothing can be registered here")
        return found if isinstance(found, Response) else answer({"id": found.schema_id})

    async def types(self, _: Request, __: Caller | None) -> Response:
        """List the kinds of schemas."""
        return answer(["AVRO"])

    async def schema(self, request: Request, _: Caller | None) -> Response:
        """Show a schema by its id, which stands in the first bytes of each record."""
        number = _number(request)
        if number is None:
            return no_schema(request.path_params["schema_id"])
        highest = {"maxId": max(registry())} if _asked(request, "fetchMaxId") else {}
        return answer({"schema": schema_text(number), **highest})

    async def schema_alone(self, request: Request, _: Caller | None) -> Response:
        """Show the text of a schema and nothing around it."""
        number = _number(request)
        if number is None:
            return no_schema(request.path_params["schema_id"])
        return Response(schema_text(number), media_type=MEDIA_TYPE)

    async def schema_subjects(self, request: Request, caller: Caller | None) -> Response:
        """List the subjects that a schema stands under."""
        return self._holding(request, caller, lambda one: one["subject"])

    async def schema_versions(self, request: Request, caller: Caller | None) -> Response:
        """List the subjects and versions that a schema stands under."""
        return self._holding(request, caller, lambda one: one)

    async def config(self, _: Request, __: Caller | None) -> Response:
        """Tell how schemas may change."""
        return answer({"compatibilityLevel": COMPATIBILITY})

    async def config_of(self, request: Request, _: Caller | None) -> Response:
        """Tell it of one subject."""
        subject = request.path_params["subject"]
        if self._subjects.versions(subject) or request.query_params.get("defaultToGlobal") == "true":
            return answer({"compatibilityLevel": COMPATIBILITY})
        told = f"Subject '{subject[:200]}' does not have subject-level compatibility configured"
        return failure(404, NO_SETTING, told)

    async def mode(self, _: Request, __: Caller | None) -> Response:
        """Tell that nothing can be registered; of every subject, as the registry does while no subject has its own."""
        return answer({"mode": MODE})

    def _known(self, caller: Caller | None) -> list[str]:
        """List what a caller may know of: the queues of other tenants are none of them."""
        connection = self._ingress.connection
        queues = [
            queue["name"]
            for queue in (() if connection is None else connection.queues.all())
            if caller is None or "admin" in caller.scopes or queue["owner"] in (None, caller.owner)
        ]
        return self._subjects.all(queues)

    def _named(self, request: Request, caller: Caller | None) -> list[str]:
        """List the subjects that a list is about; none was ever deleted."""
        prefix = request.query_params.get("subjectPrefix", "")
        return [] if _asked(request, "deletedOnly") else [one for one in self._known(caller) if one.startswith(prefix)]

    def _holding(self, request: Request, caller: Caller | None, of: Callable[[dict[str, Any]], object]) -> Response:
        number = _number(request)
        if number is None:
            return no_schema(request.path_params["schema_id"])
        only = request.query_params.get("subject")
        known = [subject for subject in self._known(caller) if not only or subject == only]
        found = map(of, holding(number, self._subjects, known))
        return answer(page([*found], *_bounds(request)))

    def _version(self, request: Request) -> Version | Response:
        subject, version = request.path_params["subject"], request.path_params["version"]
        versions = self._subjects.versions(subject)
        if not versions:
            return no_subject(subject)
        try:
            found = chosen(versions, version)
        except ValueError:
            told = f"The specified version '{version[:40]}' is not a valid version id: a number from 1, or latest"
            return failure(422, BAD_VERSION, told)
        return found if found is not None else failure(404, NO_VERSION, f"Version {version} not found.")

    async def _matching(self, request: Request) -> Version | Response | None:
        body = await read_body(request, limit=MAX_BODY)
        try:
            members = orjson.loads(body)
        except orjson.JSONDecodeError:
            members = None
        if not isinstance(members, dict) or not isinstance(members.get("schema"), str):
            raise InvalidRequest("the body must be a JSON object with the member schema, a text", field="schema")
        versions = self._subjects.versions(subject := request.path_params["subject"])
        if not versions:
            return no_subject(subject)
        if members.get("schemaType", "AVRO") != "AVRO":
            return None
        try:
            return matching(versions, members["schema"])
        except NoSchema as error:
            return failure(422, BAD_SCHEMA, f"Invalid schema: {error}")

    def _guarded(self, handler: Answering) -> Callable[[Request], Awaitable[Response]]:
        """Ask for a key where others than this machine can come."""

        async def guarded(request: Request) -> Response:
            caller = None if self._open else self._ingress.keys.holder(_key(request), "read")
            return await handler(request, caller)

        return guarded


def _number(request: Request) -> int | None:
    text: str = request.path_params["schema_id"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return number if number in registry() else None


def _asked(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() == "true"


def _bounds(request: Request) -> tuple[int, int]:
    """Return offset and limit of a list; a limit below zero is none, as clients send it who want everything."""
    return _whole(request, "offset", 0), _whole(request, "limit", -1)


def _whole(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name, "") or str(otherwise)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise InvalidRequest(f"{name} must be a whole number", field=name)
    return int(text)


def _key(request: Request) -> str:
    """Return the key of a request: the password of basic auth, or a bearer."""
    scheme, _, given = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and given.strip():
        return given.strip()
    if scheme.lower() == "basic":
        try:
            password = base64.b64decode(given.strip(), validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            password = ""
        if password:
            return password
    raise Unauthorized("an API key is required: send it as the password of basic auth")
