"""The commit tick: what still runs is claimed, then the offsets below it are committed.

So an offset never waits for a model, and a kill -9 re-runs at most what was taken since the last tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from core.settings import Settings
from dispatcher import metrics
from dispatcher.clock import Deadline
from dispatcher.crew import Crew
from dispatcher.events import about_task
from dispatcher.outbox import Outbox
from dispatcher.reader import GroupReader
from dispatcher.runner import Runner

TICK_S = 10.0
"""A tick that Kafka holds up for longer is given up; its claims stay in the outbox and the next tick goes on."""


class Ticker:
    """Tick at the commit interval, and at once when asked."""

    def __init__(
        self, settings: Settings, *, runner: Runner, outbox: Outbox, readers: Callable[[], Iterable[GroupReader]]
    ) -> None:
        self._settings = settings
        self._runner = runner
        self._outbox = outbox
        self._readers = readers
        self._claiming = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self, crew: Crew) -> None:
        """Begin to tick."""
        self._task = crew.spawn(self._run(), name="ticker")

    async def close(self) -> None:
        """Stop ticking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def tick(self, readers: Iterable[GroupReader], deadline: Deadline, *, last: bool = False) -> None:
        """Claim everything that runs, then commit these readers; with the time up, what is safe by then.

        `last` waits for the outcomes on their way too: whoever owns the partitions next must not run them again.
        """
        await self._claim(deadline)
        if last:
            await self._outbox.caught_up(deadline)
        await asyncio.gather(*(reader.commit(deadline) for reader in readers))

    async def _claim(self, deadline: Deadline) -> None:
        async with self._claiming:
            claims = self._runner.to_claim()
            events = [
                about_task(self._settings, item.work, happened, home=item.home, traceparent=item.traceparent)
                for item, happened in claims
            ]
            if await self._outbox.put_all(events, deadline):
                metrics.CLAIMED.inc(len(claims))
                for item, happened in claims:
                    item.streamed = happened["streamed"]
                    item.claim()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.dispatcher.commit_interval_s)
            await self.tick(list(self._readers()), Deadline(TICK_S))
