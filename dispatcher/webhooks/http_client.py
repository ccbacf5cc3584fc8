"""HTTP client of webhooks: one POST per delivery attempt, with an SSRF guard, lenient responses and DNS in threads."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from core.clock import epoch_ms
from core.retry_after import retry_after_s
from core.settings.webhooks import WebhookSettings
from dispatcher.webhooks.circuit_breaker import HostHealth
from schemas.callback_url import CallbackPolicy, is_blocked, problem

BLOCKED_MESSAGE = "is not allowed for callbacks"
HEAD_END = b"\r\n\r\n"
THREADS = 32
HEADERS = {"content-type": "application/json; charset=utf-8", "user-agent": "headrace", "accept-encoding": "identity"}
MAX_RESPONSE_BYTES = 65_536
"""At most so much of a response is read; nothing of it is stored."""
DNS_TTL_S = 5
BODY_TIMEOUT_S = 1.0
"""The status decides; the connection of a slower response body is closed."""
OVERLOADED_STATUSES = frozenset((429, 502, 503, 504))
REASON_LENGTH = 200


class AddressBlocked(OSError):
    """The address or port is not allowed for callbacks; see webhooks.allow_private and webhooks.ports."""


def socket_factory(allowed: CallbackPolicy) -> Callable[[Any], socket.socket]:
    """Return the socket factory of an aiohttp connector, which checks every address that it connects to."""

    def guarded(address_info: Any) -> socket.socket:
        family, kind, protocol, _, address = address_info
        host, port = str(address[0]), int(address[1])
        if is_blocked(host, private=allowed.private):
            raise AddressBlocked(errno.EACCES, f"{host} {BLOCKED_MESSAGE}")
        if allowed.ports and port not in allowed.ports:
            raise AddressBlocked(errno.EACCES, f"port {port} {BLOCKED_MESSAGE}")
        return socket.socket(family, kind, protocol)

    return guarded


class LenientResponseHandler(ResponseHandler):
    """Parses the headers before the rest: an error in the body closes the connection, and the status counts.

    A body after a 204, or longer than its content-length, is a common mistake of receivers. When both arrive in one
    packet, the parser rejects the whole response, status included: an accepted delivery would be retried for three days
    and then be a dead letter.
    """

    def data_received(self, data: bytes) -> None:
        """Pass on received data."""
        head, end, rest = data.partition(HEAD_END)
        if rest:
            super().data_received(head + end)
            data = rest
        super().data_received(data)


class LenientConnector(aiohttp.TCPConnector):
    """Connector with the lenient handler."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = LenientResponseHandler
        self._factory = partial(kind, loop=self._loop)


class Resolver(AbstractResolver):
    """The system's resolver, in threads of its own: a name server that does not respond delays lookups only."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name; raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": kind,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for kind, protocol, address in found
        ]

    async def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: int) -> list[tuple[int, int, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    return [(kind, protocol, str(address[0])) for kind, _, protocol, _, address in found]


class Disposition(Enum):
    """How an attempt is handled."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"
    GONE = "gone"


class AttemptResult(NamedTuple):
    """The disposition of an attempt with its reason; `kind` is the reason in one word, for metrics."""

    disposition: Disposition
    reason: str
    kind: str
    health: HostHealth = HostHealth.HEALTHY
    status: int | None = None
    retry_after_s: float | None = None


def classify_status(status: int, retry_after: str | None = None, *, now_ms: int = 0) -> AttemptResult:
    """Classify a response status: 2xx is delivered, 410 is final, and everything else is retried.

    A login page (302, 401, 403), a route that is not deployed yet (404) and a conflict (409) are temporary: giving up
    would lose the delivery.
    """
    if 200 <= status < 300:
        return AttemptResult(Disposition.DELIVERED, f"answered {status}", "none", status=status)
    reason = f"the receiver answered {status}"
    health = HostHealth.OVERLOADED if status in OVERLOADED_STATUSES else HostHealth.HEALTHY
    if status == 410:
        return AttemptResult(Disposition.GONE, reason, "gone", health, status)
    kind = "throttled" if status == 429 else f"{status // 100}xx"
    if 300 <= status < 400:
        reason, kind = f"{reason}, and redirects are not followed", "redirect"
    return AttemptResult(Disposition.RETRY, reason, kind, health, status, retry_after_s(retry_after, now_ms=now_ms))


class WebhookClient:
    """Posts webhooks; addresses are checked when they are connected to, so a DNS change in between has no effect."""

    def __init__(
        self, settings: WebhookSettings, allowed: CallbackPolicy, resolver: AbstractResolver | None = None
    ) -> None:
        self._allowed = allowed
        self._resolver = resolver or Resolver()
        connector = LenientConnector(
            limit=settings.concurrency,
            limit_per_host=settings.per_host,
            ssl=ssl.create_default_context(),
            socket_factory=socket_factory(allowed),
            resolver=self._resolver,
            ttl_dns_cache=DNS_TTL_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            headers=HEADERS,
            max_line_size=MAX_RESPONSE_BYTES,
            max_field_size=MAX_RESPONSE_BYTES,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> AttemptResult:
        """Post once."""
        if (why := problem(url, self._allowed)) is not None:
            return AttemptResult(Disposition.REFUSED, f"the callback URL {why}", "blocked")
        try:
            spelled = URL(url, encoded=True)  # unchanged: a receiver may have signed exactly that
            async with self._session.post(spelled, data=body, headers=headers, allow_redirects=False) as response:
                answer = classify_status(response.status, response.headers.get("retry-after"), now_ms=epoch_ms())
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(BODY_TIMEOUT_S):
                        await _skip(response.content)
                return answer
        except TimeoutError:
            return AttemptResult(
                Disposition.RETRY, "the receiver did not answer in time", "timeout", HostHealth.UNREACHABLE
            )
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError):
            return AttemptResult(Disposition.REFUSED, "the callback URL cannot be used", "blocked")
        except aiohttp.ClientResponseError as error:
            reason = f"the receiver's response is not valid HTTP: {error.message.partition(':')[0]}"[:REASON_LENGTH]
            return AttemptResult(Disposition.RETRY, reason, "protocol")
        except (aiohttp.ClientError, OSError) as error:
            return _failed(error)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._resolver.close()
        await asyncio.sleep(0)


async def _skip(content: aiohttp.StreamReader) -> None:
    """Read the response body, so that the connection can be reused; a long one is left unread."""
    left = MAX_RESPONSE_BYTES
    while left > 0 and (part := await content.read(left)):
        left -= len(part)


def _failed(error: aiohttp.ClientError | OSError) -> AttemptResult:
    reason = (str(error) or type(error).__name__)[:REASON_LENGTH]
    if _blocked(error):
        return AttemptResult(Disposition.REFUSED, reason, "blocked")
    kind = "tls" if isinstance(error, aiohttp.ClientSSLError) else "network"
    return AttemptResult(Disposition.RETRY, reason, kind, HostHealth.UNREACHABLE)


def _blocked(error: BaseException) -> bool:
    """Return whether an address was blocked; with several addresses aiohttp joins their errors into one text."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(inner, AddressBlocked) or BLOCKED_MESSAGE in str(inner)
