"""One attempt of one callback."""

from __future__ import annotations

import asyncio
import ssl
from enum import Enum
from typing import NamedTuple

import aiohttp

from dispatcher.webhooks.guard import MARK, Blocked, socket_factory

HEADERS = {"content-type": "application/json; charset=utf-8", "user-agent": "headrace", "accept-encoding": "identity"}
ANSWER_BYTES = 65_536
"""Of the receiver's answer no more than this is read, and nothing is kept."""


class Verdict(Enum):
    """What an attempt came to."""

    DELIVERED = "delivered"
    AGAIN = "again"
    REFUSED = "refused"


class Answer(NamedTuple):
    """The verdict with its reason."""

    verdict: Verdict
    reason: str


def judge(status: int) -> Answer:
    """Judge a receiver's status: redirects are not followed, 429 and 5xx may pass, any other is final."""
    if 200 <= status < 300:
        return Answer(Verdict.DELIVERED, f"answered {status}")
    again = status == 429 or status >= 500
    return Answer(Verdict.AGAIN if again else Verdict.REFUSED, f"the receiver answered {status}")


class Poster:
    """Post callbacks; addresses are checked when they are connected to, so a name cannot be changed in between."""

    def __init__(self, *, allow_private: bool, timeout_s: float, concurrency: int) -> None:
        connector = aiohttp.TCPConnector(
            limit=concurrency,
            ssl=ssl.create_default_context(),
            socket_factory=socket_factory(allow_private=allow_private),
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers=HEADERS,
        )

    async def post(self, url: str, body: bytes) -> Answer:
        """Post once."""
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as response:
                await response.content.read(ANSWER_BYTES)
                return judge(response.status)
        except TimeoutError:
            return Answer(Verdict.AGAIN, "the receiver did not answer in time")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            return Answer(Verdict.REFUSED, "the callback URL cannot be used")
        except (aiohttp.ClientError, OSError) as error:
            verdict = Verdict.REFUSED if _blocked(error) else Verdict.AGAIN
            return Answer(verdict, str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await asyncio.sleep(0)


def _blocked(error: BaseException) -> bool:
    """Tell a forbidden address; with several addresses aiohttp joins their errors into one text."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(inner, Blocked) or MARK in str(inner)
