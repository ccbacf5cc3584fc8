"""One upstream model server: the httpx API with one long-lived client, and its failures by name.

The transport is httpx-aiohttp's, chosen by measurement (docs/adr). It maps every lost connection to ConnectTimeout, so
failures are told apart by aiohttp's own exception behind it.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache

import aiohttp
import httpx

from core.settings import Settings
from dispatcher.outcome import Failure
from dispatcher.salvage import SalvagingTransport

KEEP_ALIVE_S = 4.0
"""Below the five seconds after which common servers close an idle connection: a call must not meet a dead one."""
PROBE_S = 2.0
READ_BYTES = 262_144


class CallError(Exception):
    """A call did not come to an answer."""

    def __init__(self, failure: Failure, detail: str = "") -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


class Upstream:
    """A base URL with its client; `load`, `up` and `out_until` belong to the pool."""

    def __init__(self, settings: Settings, base: str) -> None:
        self.base = base
        self.load = 0
        self.up = False
        self.out_until = 0.0
        self._headers = {"accept-encoding": "identity", "user-agent": "headrace"}
        if (key := settings.upstream.api_key) is not None:
            self._headers["authorization"] = f"Bearer {key.get_secret_value()}"
        connect_s = settings.dispatcher.connect_timeout_s
        self._extensions = {"timeout": {"connect": connect_s, "read": None, "write": None, "pool": None}}
        self._client = _client()
        self._url = lru_cache(maxsize=256)(self._make_url)

    @asynccontextmanager
    async def post(
        self, endpoint: str, body: bytes | AsyncIterable[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield the answer, its body still to be read; what fails inside is a CallError.

        A body that is a stream is sent while it is read, and goes with a content-length among the headers.
        Leaving the block with the body unread closes the connection: that is how a call is cancelled.
        """
        request = httpx.Request(
            "POST",
            self._url(endpoint),
            content=body,
            headers={**self._headers, **headers},
            extensions=self._extensions,
        )
        try:
            response = await self._client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as error:
            raise _named(error) from error

    async def answers(self) -> bool | None:
        """Ask for the models: True for any HTTP answer, False without a connection, None when it is merely slow."""
        timeout = httpx.Timeout(PROBE_S)
        try:
            response = await self._client.get(f"{self.base}/models", headers=self._headers, timeout=timeout)
        except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
            return None if isinstance(error, httpx.ReadTimeout) else False
        return response.status_code > 0

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _make_url(self, endpoint: str) -> httpx.URL:
        path = endpoint.removeprefix("/v1") if endpoint.startswith("/v1/") else endpoint
        return httpx.URL(self.base + path)


def _client() -> httpx.AsyncClient:
    trust = ssl.create_default_context()

    def session() -> aiohttp.ClientSession:
        # No limit of its own: the slots are the limit.
        connector = aiohttp.TCPConnector(limit=0, ssl=trust, keepalive_timeout=KEEP_ALIVE_S)
        return aiohttp.ClientSession(
            connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=READ_BYTES
        )

    transport = SalvagingTransport(verify=trust, trust_env=False, client=session)
    return httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)


def _named(error: Exception) -> CallError:
    """Tell what a failure means for the task."""
    cause = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
    if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | httpx.ConnectError):
        failure = Failure.UNREACHABLE
    elif isinstance(cause, aiohttp.ClientResponseError | aiohttp.InvalidURL | httpx.DecodingError | httpx.InvalidURL):
        failure = Failure.MALFORMED
    else:
        failure = Failure.CUT
    return CallError(failure, str(cause) or type(cause).__name__)
