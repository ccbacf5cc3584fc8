"""What keeps the lanes from taking work: an upstream that does not answer, a Kafka that takes no events."""

from __future__ import annotations

import asyncio


class IntakeGate:
    """Open while nobody holds it."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._opened = asyncio.Event()
        self._opened.set()
        self._ended = False

    @property
    def pause_reasons(self) -> list[str]:
        """Return why it is closed."""
        return sorted(self._reasons)

    def set_paused(self, why: str, closed: bool) -> None:
        """Close it for a reason, or take that reason back."""
        if closed:
            self._reasons.add(why)
        else:
            self._reasons.discard(why)
        if self._reasons and not self._ended:
            self._opened.clear()
        else:
            self._opened.set()

    def close(self) -> None:
        """Let everybody through for good: the process stops."""
        self._ended = True
        self._opened.set()

    async def wait_open(self) -> None:
        """Wait until it is open."""
        await self._opened.wait()
