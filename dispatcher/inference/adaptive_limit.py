"""How many offline calls run at once while online tasks come: fewer as long as this process is late itself.

With answers that come at once it is this process and not a model server that calls wait for, and then each offline call
in hand stands before the next online one: 57 of them at 2 ms each make 0.1 s, and no call is made sooner for it.
So the limit falls by half while the event loop is late and grows again step by step. Slow model servers keep no loop
busy: there it stays out of the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dispatcher.inference.slots import CallSlots
from dispatcher.task_supervisor import TaskSupervisor

INTERVAL_S = 0.05
MAX_LAG_S = 0.02
"""Lateness that an online call may meet at each of its few steps here."""
MIN_SLOTS = 8
"""Enough to keep a core busy, and to fill each write of outcomes with several."""
STEP = 2
RECENT_S = 10.0
"""Without an online task for so long, there is nobody to make room for."""


class AdaptiveLimit:
    """Bound the offline slots by how late the loop is."""

    def __init__(self, slots: CallSlots, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._monotonic = monotonic
        self._online_at = -RECENT_S
        self._task: asyncio.Task[None] | None = None

    def note_online(self) -> None:
        """Note that an online task has come."""
        self._online_at = self._monotonic()

    def start(self, supervisor: TaskSupervisor) -> None:
        """Begin to watch the loop."""
        self._task = supervisor.spawn(self._watch(), name="pace")

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def observe_lag(self, lag_s: float) -> None:
        """Follow one measurement of the loop's lateness."""
        slots, most = self._slots, self._slots.max_offline
        if self._monotonic() - self._online_at > RECENT_S:
            most = None
        elif lag_s > MAX_LAG_S:
            most = max(MIN_SLOTS, (slots.capacity if most is None else most) // 2)
        elif most is not None:
            most += STEP
        if most is not None and most >= slots.capacity:
            most = None
        if most != slots.max_offline:
            slots.limit_offline(most)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            self.observe_lag(loop.time() - due)
