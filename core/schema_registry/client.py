"""Client of Confluent's registry API, with retries while the registry is unavailable.

All calls are idempotent: registering a schema again under the same id changes nothing. A response without the error
format of a registry is treated as a wrong address.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from core.errors import ConfigError, Unavailable
from core.settings.models import Settings

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
MAX_ANSWER_BYTES = 4_194_304
"""Maximum response size; a schema has a few KB."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0
NO_SUBJECT, NO_VERSION, NO_SCHEMA = 40401, 40402, 40403
NOT_PERMITTED = 42205
SHOWN_CHARACTERS = 300

Sleep = Callable[[float], Awaitable[None]]


class RegistryResponse(NamedTuple):
    """Response of the registry; `code` is its error code, `body` None if it was not JSON."""

    status: int
    code: int | None
    message: str
    body: Any

    @property
    def ok(self) -> bool:
        """Return whether the call succeeded."""
        return self.status < 300


class RegisteredVersion(NamedTuple):
    """A version of a subject as the registry has it."""

    schema_id: int
    text: str


class NotPermitted(ConfigError):
    """The mode of the subject does not allow a schema with a given id."""


class RegistryClient:
    """One registry; raises Unavailable when it is unreachable beyond the timeout, ConfigError for permanent errors."""

    def __init__(
        self,
        settings: Settings,
        *,
        retry_timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        kafka = settings.kafka
        self.url = kafka.registry_url or ""
        password = kafka.registry_password.get_secret_value() if kafka.registry_password else ""
        self._retry_timeout_s = retry_timeout_s
        self._sleep, self._clock = sleep, clock
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                auth=httpx.BasicAuth(kafka.registry_user, password) if kafka.registry_user or password else None,
                timeout=kafka.request_timeout_s,
                headers={"accept": f"{CONTENT_TYPE}, application/json", "content-type": CONTENT_TYPE},
                transport=transport,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(f"kafka.registry_url {self.url} is no URL that can be called: {error}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def schema(self, schema_id: int) -> str | None:
        """Return the schema text of an id."""
        answer = await self._call("GET", f"/schemas/ids/{schema_id}")
        if answer.code in (NO_SUBJECT, NO_SCHEMA):
            return None
        return str(self._member(answer, "schema", str))

    async def version(self, subject: str, number: int) -> RegisteredVersion | None:
        """Return one version of a subject."""
        answer = await self._call("GET", f"/subjects/{quote(subject, safe='')}/versions/{number}")
        if answer.code in (NO_SUBJECT, NO_VERSION):
            return None
        return RegisteredVersion(self._member(answer, "id", int), self._member(answer, "schema", str))

    async def mode(self, subject: str, *, in_force: bool = False) -> str | None:
        """Return the mode set on a subject, or its effective mode; None if the registry does not return one.

        A read-only account is often not authorized to see it, which is fine as long as no schema is missing.
        """
        query = "?defaultToGlobal=true" if in_force else ""
        answer = await self._call("GET", f"/mode/{quote(subject, safe='')}{query}", refusable=True)
        mode = answer.body.get("mode") if answer.ok and isinstance(answer.body, dict) else None
        return mode if isinstance(mode, str) else None

    async def set_mode(self, subject: str, mode: str) -> RegistryResponse:
        """Set the mode of a subject, even if it has versions; the response may be an error."""
        return await self._call("PUT", f"/mode/{quote(subject, safe='')}?force=true", {"mode": mode})

    async def unset_mode(self, subject: str) -> RegistryResponse:
        """Remove the mode of a subject, so that the global one applies; the response may be an error."""
        return await self._call("DELETE", f"/mode/{quote(subject, safe='')}")

    async def register(self, subject: str, *, version: int, schema_id: int, text: str) -> int:
        """Register a schema under a given id and version; returns the assigned id. Raises NotPermitted."""
        body = {"schema": text, "schemaType": "AVRO", "id": schema_id, "version": version}
        answer = await self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", body)
        if answer.code == NOT_PERMITTED:
            raise NotPermitted(self.refusal(f"version {version} of {subject} as id {schema_id}", answer))
        return int(self._member(answer, "id", int))

    def refusal(self, what: str, answer: RegistryResponse) -> str:
        """Return the error for a rejected request."""
        return f"the schema registry {self.url} refuses {what}: {answer.status} {answer.message}".rstrip(" :")

    async def _call(
        self, method: str, path: str, body: dict[str, object] | None = None, *, refusable: bool = False
    ) -> RegistryResponse:
        give_up = self._clock() + self._retry_timeout_s
        wait_s = FIRST_WAIT_S
        while True:
            try:
                answer = await self._once(method, path, body)
                why = f"answers {answer.status} {answer.message}".rstrip()
                if answer.status != 429 and answer.status < 500:
                    break
            except httpx.RequestError as error:
                why = f"does not answer ({str(error) or type(error).__name__})"
            if self._clock() + wait_s > give_up:
                raise Unavailable(f"the schema registry {self.url} {why}")
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        if answer.status in (401, 403) and not refusable:
            raise ConfigError(
                f"the schema registry {self.url} answers {answer.status} to {method} {path.partition('?')[0]}: "
                "check kafka.registry_user, kafka.registry_password and what they may do there"
            )
        return answer

    async def _once(self, method: str, path: str, body: dict[str, object] | None) -> RegistryResponse:
        content = None if body is None else json.dumps(body).encode()
        async with self._http.stream(method, path, content=content) as response:
            raw = bytearray()
            async for piece in response.aiter_bytes():
                raw += piece
                if len(raw) > MAX_ANSWER_BYTES:
                    raise ConfigError(f"the schema registry {self.url} answers with more than {MAX_ANSWER_BYTES} bytes")
        return _read(response.status_code, bytes(raw))

    def _member(self, answer: RegistryResponse, name: str, kind: type) -> Any:
        """Return a required member of a response."""
        value = answer.body.get(name) if isinstance(answer.body, dict) else None
        if answer.ok and isinstance(value, kind):
            return value
        if answer.code is not None and not answer.ok:
            raise ConfigError(f"the schema registry {self.url} answers {answer.status} {answer.message}")
        raise ConfigError(
            f"kafka.registry_url {self.url} is no schema registry: it answers {answer.status} without the member {name}"
        )


def _read(status: int, raw: bytes) -> RegistryResponse:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    members = body if isinstance(body, dict) else {}
    code, message = members.get("error_code"), members.get("message")
    shown = " ".join(message.split())[:SHOWN_CHARACTERS] if isinstance(message, str) else ""
    return RegistryResponse(status, code if isinstance(code, int) else None, shown, body)
