"""One attempt of one callback."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from core.settings.webhooks import WebhookSettings
from dispatcher.webhooks.circuit_breaker import Health
from dispatcher.webhooks.lenient_response import HeadFirstConnector
from dispatcher.webhooks.resolver import Resolver
from dispatcher.webhooks.retry_schedule import retry_after_s
from dispatcher.webhooks.ssrf_guard import MARK, Blocked, socket_factory
from schemas.callback_url import Policy, problem

HEADERS = {"content-type": "application/json; charset=utf-8", "user-agent": "headrace", "accept-encoding": "identity"}
ANSWER_BYTES = 65_536
"""Of the receiver's answer no more than this is read, and nothing is kept."""
DNS_S = 5
ANSWER_S = 1.0
"""The status decides; a receiver that dribbles its body loses the connection."""
BUSY = frozenset((429, 502, 503, 504))
REASON_LENGTH = 200


class Verdict(Enum):
    """What an attempt came to."""

    DELIVERED = "delivered"
    AGAIN = "again"
    REFUSED = "refused"
    GONE = "gone"


class Answer(NamedTuple):
    """The verdict with its reason; `kind` is the reason in one word, for counters."""

    verdict: Verdict
    reason: str
    kind: str
    health: Health = Health.GOOD
    status: int | None = None
    retry_after_s: float | None = None


def judge(status: int, retry_after: str | None = None, *, now_s: float = 0.0) -> Answer:
    """Judge a receiver's status: 2xx is delivered, 410 ends it, and anything else may be over when it is asked again.

    A login page before the receiver (302, 401, 403), a route that is not deployed yet (404) or a conflict (409) passes,
    and what was given up for it would be lost to the receiver.
    """
    if 200 <= status < 300:
        return Answer(Verdict.DELIVERED, f"answered {status}", "none", status=status)
    reason = f"the receiver answered {status}"
    health = Health.BUSY if status in BUSY else Health.GOOD
    if status == 410:
        return Answer(Verdict.GONE, reason, "gone", health, status)
    kind = "throttled" if status == 429 else f"{status // 100}xx"
    if 300 <= status < 400:
        reason, kind = f"{reason}, and redirects are not followed", "redirect"
    return Answer(Verdict.AGAIN, reason, kind, health, status, retry_after_s(retry_after, now_s=now_s))


class Poster:
    """Post callbacks; addresses are checked when they are connected to, so a name cannot be changed in between."""

    def __init__(self, settings: WebhookSettings, allowed: Policy, resolver: AbstractResolver | None = None) -> None:
        self._allowed = allowed
        self._resolver = resolver or Resolver()
        connector = HeadFirstConnector(
            limit=settings.concurrency,
            limit_per_host=settings.per_host,
            ssl=ssl.create_default_context(),
            socket_factory=socket_factory(allowed),
            resolver=self._resolver,
            ttl_dns_cache=DNS_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            headers=HEADERS,
            max_line_size=ANSWER_BYTES,
            max_field_size=ANSWER_BYTES,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post once."""
        if (why := problem(url, self._allowed)) is not None:
            return Answer(Verdict.REFUSED, f"the callback URL {why}", "blocked")
        try:
            spelled = URL(url, encoded=True)  # as it was given: a receiver may have signed exactly that
            async with self._session.post(spelled, data=body, headers=headers, allow_redirects=False) as response:
                answer = judge(response.status, response.headers.get("retry-after"), now_s=time.time())
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await _skip(response.content)
                return answer
        except TimeoutError:
            return Answer(Verdict.AGAIN, "the receiver did not answer in time", "timeout", Health.AWAY)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError):
            return Answer(Verdict.REFUSED, "the callback URL cannot be used", "blocked")
        except aiohttp.ClientResponseError as error:
            reason = f"the receiver answered no HTTP: {error.message.partition(':')[0]}"[:REASON_LENGTH]
            return Answer(Verdict.AGAIN, reason, "protocol")
        except (aiohttp.ClientError, OSError) as error:
            return _failed(error)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._resolver.close()
        await asyncio.sleep(0)


async def _skip(content: aiohttp.StreamReader) -> None:
    """Read the answer away, so that the connection can be used again; a long one is left alone and closed."""
    left = ANSWER_BYTES
    while left > 0 and (part := await content.read(left)):
        left -= len(part)


def _failed(error: aiohttp.ClientError | OSError) -> Answer:
    reason = (str(error) or type(error).__name__)[:REASON_LENGTH]
    if _blocked(error):
        return Answer(Verdict.REFUSED, reason, "blocked")
    kind = "tls" if isinstance(error, aiohttp.ClientSSLError) else "network"
    return Answer(Verdict.AGAIN, reason, kind, Health.AWAY)


def _blocked(error: BaseException) -> bool:
    """Tell a forbidden address; with several addresses aiohttp joins their errors into one text."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(inner, Blocked) or MARK in str(inner)
