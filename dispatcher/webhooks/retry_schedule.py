"""Retry schedule of deliveries, and the retry topics in which they wait. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from core.retry_after import MAX_RETRY_AFTER_S
from schemas.topics import RETRY_DELAYS_S

JITTER = 0.1
"""Attempts are delayed by up to this share, so that deliveries that failed together are not retried together."""
MIN_DEFERRAL_MS = 6_000
"""Shorter waits are in memory: after a kill -9, what was delivered out of order within this time is repeated."""
JITTER_SLACK_S = 10
DEFERRALS = ((5_000, 1, 2), (60_000, 5, 4), (600_000, 60, 5), (math.inf, 300, 5))
"""Age limit in ms, wait in s, random addition in s: a delivery younger than the limit waits so long for its host."""
Random = Callable[[], float]
"""Returns random numbers from 0 to 1."""


def next_wait_ms(step: int, delays_s: Sequence[float], *, retry_after_s: float | None, rng: Random) -> int | None:
    """Return the wait before the attempt after `step` attempts; None when there is none."""
    if step > len(delays_s):
        return None
    wait_s = max(delays_s[step - 1], min(retry_after_s or 0, MAX_RETRY_AFTER_S))
    return math.ceil(wait_s * (1 + JITTER * rng()) * 1000)


def give_up_after_ms(delays_s: Sequence[float]) -> int:
    """Return the maximum age of a round whose host is not called."""
    return int((sum(delays_s) * (1 + JITTER) + JITTER_SLACK_S) * 1000)


def deferral_ms(*, age_ms: int, rng: Random) -> int:
    """Return how long to wait for an unavailable or saturated host: the older the delivery, the longer.

    Each wait uses one record of one retry topic, because ten thousand deliveries may wait, and a random addition in
    memory.
    """
    step_s, spread_s = next((step, spread) for limit_ms, step, spread in DEFERRALS if age_ms < limit_ms)
    return int((step_s + spread_s * rng()) * 1000)


def delay_tier(wait_ms: int) -> int:
    """Return the delay of the retry topic for a wait, seconds: the longest that is not longer than the wait."""
    return max(delay_s for delay_s in RETRY_DELAYS_S if delay_s * 1000 <= max(wait_ms, 0))
