"""How many tasks a minute each tenant may bring through the Kafka door. Pure; the caller brings the clock.

Counted per scheduler process, as over HTTP per ingress: a start forgets what was used, and each of several schedulers
of a lane lets as many through for the partitions that it owns.
"""

from __future__ import annotations

from collections.abc import Callable

from core.token_bucket import TokenBucket

MAX_TENANTS = 10_000
"""Owners remembered; where records may name anybody they could name a new one each. 2 MB."""


class Quotas:
    """The bucket of every owner that has a limit; `limit_of` is asked each time, for it may change."""

    def __init__(self, limit_of: Callable[[str | None], int]) -> None:
        self._limit_of = limit_of
        self._buckets: dict[str | None, TokenBucket] = {}

    def check(self, owner: str | None, *, now_s: float) -> str | None:
        """Count one task; return why it is one too many."""
        limit = self._limit_of(owner)
        if not limit:
            return None
        bucket = self._buckets.get(owner)
        if bucket is None or bucket.limit != limit:
            if len(self._buckets) >= MAX_TENANTS:
                self._buckets.clear()
            bucket = self._buckets[owner] = TokenBucket(limit, now_s=now_s)
        if not bucket.take(now_s):
            return None
        who = "nobody in particular" if owner is None else owner
        return f"more than the {limit} tasks per minute that {who} may write here (direct.tasks_per_minute)"
