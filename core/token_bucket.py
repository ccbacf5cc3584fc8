"""Token bucket that limits a rate per minute. Pure; the caller passes the time."""

from __future__ import annotations

WINDOW_S = 60


class TokenBucket:
    """Token bucket with a burst of one minute."""

    def __init__(self, limit: int, *, now_s: float) -> None:
        self.limit = limit
        self.tokens = float(limit)
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        # A clock that is set back neither adds nor removes tokens.
        passed_s = max(0.0, now_s - self._at_s)
        self.tokens = min(float(self.limit), self.tokens + passed_s * self.limit / WINDOW_S)
        self._at_s = now_s
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) * WINDOW_S / self.limit

    @property
    def full_in_s(self) -> float:
        """Return the seconds from the last take until the bucket is full."""
        return (self.limit - self.tokens) * WINDOW_S / self.limit
