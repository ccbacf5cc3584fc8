"""What keeps the lanes from taking work: an upstream that does not answer, a Kafka that takes no events."""

from __future__ import annotations

import asyncio


class IntakeGate:
    """Open while nobody holds it."""

    def __init__(self) -> None:
        self._holds: set[str] = set()
        self._opened = asyncio.Event()
        self._opened.set()
        self._ended = False

    @property
    def holds(self) -> list[str]:
        """Return why it is closed."""
        return sorted(self._holds)

    def hold(self, why: str, closed: bool) -> None:
        """Close it for a reason, or take that reason back."""
        if closed:
            self._holds.add(why)
        else:
            self._holds.discard(why)
        if self._holds and not self._ended:
            self._opened.clear()
        else:
            self._opened.set()

    def end(self) -> None:
        """Let everybody through for good: the process stops."""
        self._ended = True
        self._opened.set()

    async def passed(self) -> None:
        """Wait until it is open."""
        await self._opened.wait()
