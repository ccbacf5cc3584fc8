"""The upstreams as one pool: a call goes to the reachable upstream with the fewest calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from dispatcher.inference.upstream import Upstream
from dispatcher.task_supervisor import TaskSupervisor

log = logging.getLogger(__name__)

PROBE_UP_S = 5.0
PROBE_DOWN_S = 0.5
STARTUP_GRACE_S = 5.0
"""An upstream that is unreachable for so long after the start is logged; one that starts at the same time needs a
moment."""
MAX_REASON_LENGTH = 1_000
MAX_BACKOFF_S = 300.0
"""Maximum back-off, whatever Retry-After is: the upstream's clock may be wrong."""


class UpstreamPool:
    """Selects upstreams, except those that are unreachable or backing off; `on_change` is called when that changes."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        concurrency: int,
        on_change: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = upstreams
        self._concurrency = concurrency
        self._on_change = on_change
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._never_reachable = set(upstreams)
        """Upstreams that have never been reachable, and were not logged yet."""
        self._changed_event = asyncio.Event()
        self._probes: list[asyncio.Task[None]] = []
        self._timers: set[asyncio.TimerHandle] = set()

    def start(self, supervisor: TaskSupervisor) -> None:
        """Start probing the upstreams; until one responds there is no capacity."""
        self._probes = [
            supervisor.spawn(self._probe(upstream), name=f"probe-{upstream.base}") for upstream in self._upstreams
        ]

    async def close(self) -> None:
        """Stop probing and close all connections."""
        for task in self._probes:
            task.cancel()
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        for upstream in self._upstreams:
            await upstream.close()

    @property
    def up(self) -> int:
        """Return the number of reachable upstreams."""
        return sum(upstream.up for upstream in self._upstreams)

    @property
    def capacity(self) -> int:
        """Return the number of calls that may run now."""
        return self._concurrency * sum(self._usable(upstream) for upstream in self._upstreams)

    def unhealthy_reasons(self) -> str | None:
        """Describe the upstreams that accept no calls; None when all do."""
        now = self._monotonic()
        unreachable = [one for one in self._upstreams if not one.up]
        reasons = [
            f"{one.base} does not answer" + (f": it {one.failure}" if one.failure else "") for one in unreachable
        ]
        reasons += [
            f"{one.base} is backing off for {one.backoff_until - now:.0f} s (Retry-After)"
            for one in self._upstreams
            if one.up and one.backoff_until > now
        ]
        return "; ".join(reasons)[:MAX_REASON_LENGTH] or None

    async def acquire(self) -> Upstream:
        """Wait for an upstream with capacity; every `acquire` needs one `release`. The caller limits the wait."""
        while True:
            free = [u for u in self._upstreams if self._usable(u) and u.load < self._concurrency]
            if free:
                chosen = min(free, key=lambda upstream: upstream.load)
                chosen.load += 1
                return chosen
            self._changed_event.clear()
            await self._changed_event.wait()

    def release(self, upstream: Upstream) -> None:
        """Count the end of a call."""
        upstream.load -= 1
        self._changed_event.set()

    def back_off(self, upstream: Upstream, seconds: float) -> None:
        """Send no calls to an upstream for a while, as its Retry-After asks."""
        seconds = min(seconds, MAX_BACKOFF_S)
        until = self._monotonic() + seconds
        if seconds <= 0 or until <= upstream.backoff_until:
            return
        upstream.backoff_until = until
        log.info(
            "backing off from %s for %.1f s (Retry-After)", upstream.base, seconds, extra={"event": "upstream_backoff"}
        )

        def back() -> None:
            self._timers.discard(timer)
            self._changed()

        timer = asyncio.get_running_loop().call_later(seconds + 0.001, back)
        self._timers.add(timer)
        self._changed()

    def mark_unreachable(self, upstream: Upstream, reason: str) -> None:
        """Send no calls to an upstream until it responds to a probe."""
        if upstream.up:
            log.warning("%s does not answer: %s", upstream.base, reason, extra={"event": "upstream_down"})
            upstream.up = False
            self._changed()

    def _usable(self, upstream: Upstream) -> bool:
        return upstream.up and upstream.backoff_until <= self._monotonic()

    def _changed(self) -> None:
        self._changed_event.set()
        self._on_change()

    def _warn_never_reachable(self, upstream: Upstream) -> None:
        """Log an upstream that has been unreachable since the start, once: no call would ever report it."""
        if (
            upstream in self._never_reachable
            and not upstream.up
            and self._monotonic() - self._started_at >= STARTUP_GRACE_S
        ):
            self._never_reachable.discard(upstream)
            log.warning(
                "%s has not answered since the start: it %s",
                upstream.base,
                upstream.failure or "gives no answer",
                extra={"event": "upstream_down"},
            )

    async def _probe(self, upstream: Upstream) -> None:
        while True:
            answers = await upstream.is_reachable()
            # A slow upstream is not down while calls run: a busy server may have no thread for the probe.
            if answers is False or (answers is None and upstream.load == 0):
                self._warn_never_reachable(upstream)
                self.mark_unreachable(upstream, f"it {upstream.failure or 'gives no answer'} at GET /models")
            elif answers and not upstream.up:
                log.info("%s answers", upstream.base, extra={"event": "upstream_up"})
                upstream.up, upstream.failure = True, ""
                self._never_reachable.discard(upstream)
                self._changed()
            await asyncio.sleep(PROBE_UP_S if upstream.up else PROBE_DOWN_S)
