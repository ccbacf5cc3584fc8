"""When a delivery is tried again, and over which retry topics it waits until then. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from core.retry_after import MAX_RETRY_AFTER_S
from schemas.topics import RETRY_DELAYS_S

JITTER = 0.1
"""Attempts come later than the ladder says by up to this share: what failed together does not return together."""
MIN_DEFERRAL_MS = 6_000
"""Shorter waits are held in memory: a kill -9 meanwhile repeats what was delivered out of order within this time."""
JITTER_SLACK_S = 10
DEFERRALS = ((5_000, 1, 2), (60_000, 5, 4), (600_000, 60, 5), (math.inf, 300, 5))
"""Below which age, ms, a delivery waits for its host how many seconds, and up to how many more."""
Random = Callable[[], float]
"""Yields numbers from 0 to 1."""


def next_wait_ms(step: int, delays_s: Sequence[float], *, retry_after_s: float | None, rng: Random) -> int | None:
    """Return the wait before the attempt that follows `step` attempts; None when there is none."""
    if step > len(delays_s):
        return None
    wait_s = max(delays_s[step - 1], min(retry_after_s or 0, MAX_RETRY_AFTER_S))
    return math.ceil(wait_s * (1 + JITTER * rng()) * 1000)


def give_up_after_ms(delays_s: Sequence[float]) -> int:
    """Return how old a round may become while its host is not even called."""
    return int((sum(delays_s) * (1 + JITTER) + JITTER_SLACK_S) * 1000)


def deferral_ms(*, age_ms: int, rng: Random) -> int:
    """Return how long to stay away from a host that is closed or crowded: the older the delivery, the longer.

    Each is one way through one retry topic, for there may be ten thousand of them, and a spread that is held in memory.
    """
    step_s, spread_s = next((step, spread) for limit_ms, step, spread in DEFERRALS if age_ms < limit_ms)
    return int((step_s + spread_s * rng()) * 1000)


def delay_tier(wait_ms: int) -> int:
    """Return the delay of the retry topic for a wait, seconds: the longest that does not overshoot."""
    return max(delay_s for delay_s in RETRY_DELAYS_S if delay_s * 1000 <= max(wait_ms, 0))
