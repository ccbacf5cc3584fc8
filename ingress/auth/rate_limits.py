"""What one key may ask of this process: submits per minute, and requests held at once.

Counted per ingress and nowhere else: N of them let through N times as much, and a start forgets what was used. That
costs no write per request, and a limit that protects a process is one of this process.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import RateLimited
from core.token_bucket import WINDOW_S, TokenBucket
from ingress.auth.keys import Caller

HELD_RETRY_S = 1.0
"""When one of the held requests ends is not known; most models answer within seconds."""
SCOPE_KEY = "headrace.quota"
Headers = list[tuple[bytes, bytes]]


class Quota(NamedTuple):
    """What a key has left."""

    limit: int
    remaining: int
    reset_s: float
    """Until all of it is there again."""

    def headers(self) -> Headers:
        """Say it as the IETF's draft does, and as OpenAI's clients read it."""
        return [
            (b"ratelimit-policy", b'"requests";q=%d;w=%d' % (self.limit, WINDOW_S)),
            (b"ratelimit", b'"requests";r=%d;t=%d' % (self.remaining, math.ceil(self.reset_s))),
            (b"x-ratelimit-limit-requests", b"%d" % self.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % self.remaining),
            (b"x-ratelimit-reset-requests", b"%ds" % math.ceil(self.reset_s)),
        ]


class KeyLimits:
    """The limits of every key; a key without any costs nothing."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, TokenBucket] = {}
        self._held: Counter[str] = Counter()

    def submit(self, caller: Caller, scope: Scope) -> None:
        """Count one submission; raises RateLimited. The response headers show what is left."""
        limit = caller.limits.requests_per_minute
        if not limit:
            return
        now_s = self._clock()
        bucket = self._buckets.get(caller.key)
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets[caller.key] = TokenBucket(limit, now_s=now_s)
        wait_s = bucket.take(now_s)
        scope[SCOPE_KEY] = Quota(limit, int(bucket.tokens), bucket.full_in_s)
        if wait_s:
            raise RateLimited(
                f"this key may submit {limit} requests per minute; nothing was accepted, try again in "
                f"{math.ceil(wait_s)} s",
                retry_after_s=wait_s,
            )

    def check_room(self, caller: Caller) -> None:
        """Refuse one more held request of a key that has its full number; raises RateLimited."""
        limit = caller.limits.concurrency
        if limit and self._held[caller.key] >= limit:
            raise RateLimited(
                f"this key may hold {limit} requests at once; nothing was accepted, try again when one has ended",
                retry_after_s=HELD_RETRY_S,
            )

    @contextmanager
    def holding(self, caller: Caller) -> Iterator[None]:
        """Count a held request as long as the block lasts; raises RateLimited."""
        if not caller.limits.concurrency:
            yield
            return
        self.check_room(caller)
        self._held[caller.key] += 1
        try:
            yield
        finally:
            self._held[caller.key] -= 1


class QuotaHeaders:
    """Middleware that adds the remaining quota of the key to every response, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def sending(message: Message) -> None:
            quota: Quota | None = scope.get(SCOPE_KEY)
            if quota is not None and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *quota.headers()]
            await send(message)

        await self._app(scope, receive, sending)
