"""Tokens that come back evenly: how often something may be done within a minute. Pure; the caller brings the clock."""

from __future__ import annotations

WINDOW_S = 60


class TokenBucket:
    """Who was silent for a minute may spend the whole minute's tokens at once."""

    def __init__(self, limit: int, *, now_s: float) -> None:
        self.limit = limit
        self.tokens = float(limit)
        self._at_s = now_s

    def take(self, now_s: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        # A clock that was set back brings no tokens, and takes none away.
        passed_s = max(0.0, now_s - self._at_s)
        self.tokens = min(float(self.limit), self.tokens + passed_s * self.limit / WINDOW_S)
        self._at_s = now_s
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) * WINDOW_S / self.limit

    @property
    def full_in_s(self) -> float:
        """Return the seconds from the last take until all tokens are there again."""
        return (self.limit - self.tokens) * WINDOW_S / self.limit
