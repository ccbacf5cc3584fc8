"""Limits on concurrent calls: call slots, the limit of each queue, an adaptive limit for offline calls, pause reasons.

The adaptive limit matters when responses come at once: then calls wait for this process and not for a model server, and
every offline call in progress delays the next online one (57 of them at 2 ms each: 0.1 s). The limit is halved while
the event loop lags, and grows step by step otherwise. Slow model servers do not load the loop, so there it has no
effect.

Apart from the consumers, which wait for these limits, so that the rules can be tested without Kafka.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.task_supervisor import TaskSupervisor

ONLINE, OFFLINE = 0, 1
UNBOUNDED = 1 << 30
INTERVAL_S = 0.05
MAX_LAG_S = 0.02
"""Lag that an online call may meet at each of its few steps here."""
MIN_SLOTS = 8
"""Enough to use a core fully, and to put several outcomes into each write."""
STEP = 2
RECENT_S = 10.0
"""Without an online task for so long, offline calls are not limited."""


class Draining(Exception):
    """The process stops; no slots are given."""


@dataclass(frozen=True, slots=True)
class SlotRules:
    """The choice between the levels.

    Offline tasks never take the last `share` of the slots, so an online task starts at once during an offline flood.
    While offline tasks wait and have less than their own share, the next slot is theirs, so online tasks cannot starve
    them.
    """

    share: float

    def reserved(self, capacity: int) -> int:
        """Return the size of the share in slots."""
        return int(capacity * self.share)

    def max_offline(self, capacity: int, bound: int | None) -> int:
        """Return the slots that offline tasks may have; `bound` never reduces their own share."""
        limit = capacity - self.reserved(capacity)
        return limit if bound is None else min(limit, max(bound, self.reserved(capacity)))

    def pick(
        self,
        capacity: int,
        used: tuple[int, int],
        waiting: tuple[bool, bool],
        streak: int,
        bound: int | None = None,
    ) -> int | None:
        """Return the level that gets a slot now; `streak` counts online grants in a row while offline tasks waited."""
        if used[ONLINE] + used[OFFLINE] >= capacity:
            return None
        if waiting[OFFLINE] and used[OFFLINE] < self.max_offline(capacity, bound):
            due = used[OFFLINE] < self.reserved(capacity) or self._offline_by_turn(capacity, used, streak)
            if due or not waiting[ONLINE]:
                return OFFLINE
        return ONLINE if waiting[ONLINE] else None

    def available(self, level: int, capacity: int, used: tuple[int, int], bound: int | None = None) -> int:
        """Return the number of slots that a level could take now."""
        free = capacity - used[ONLINE] - used[OFFLINE]
        if level == OFFLINE:
            free = min(free, self.max_offline(capacity, bound) - used[OFFLINE])
        return max(0, free)

    def _offline_by_turn(self, capacity: int, used: tuple[int, int], streak: int) -> bool:
        """Share by turns where the slots are too few for a share in slots."""
        by_turns = self.share > 0 and self.reserved(capacity) == 0 and used[OFFLINE] == 0
        return by_turns and (streak + 1) * self.share >= 1


class CallSlots:
    """Slots to wait for; every `acquire` needs exactly one `release`."""

    def __init__(self, *, share: float, capacity: int = 0) -> None:
        self._rules = SlotRules(share)
        self._capacity = capacity
        self._used = [0, 0]
        self._waiting: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())
        self._streak = 0
        self._closed = False
        self.max_offline: int | None = None
        """Maximum offline slots while the process itself is the bottleneck."""

    @property
    def used(self) -> tuple[int, int]:
        """Return the slots in use by level."""
        return self._used[ONLINE], self._used[OFFLINE]

    @property
    def capacity(self) -> int:
        """Return the number of slots."""
        return self._capacity

    def available(self, level: int) -> int:
        """Return how many more calls of a level could start at once."""
        return max(
            0, self._rules.available(level, self._capacity, self.used, self.max_offline) - len(self._waiting[level])
        )

    def resize(self, capacity: int) -> None:
        """Change the number of slots; running calls above it continue, and their slots are not given again."""
        self._capacity = capacity
        self._grant()

    def limit_offline(self, limit: int | None) -> None:
        """Limit the offline slots, None for all but the online share; running calls continue."""
        self.max_offline = limit
        self._grant()

    async def acquire(self, level: int) -> None:
        """Wait for a slot; raises Draining when the process stops."""
        if self._closed:
            raise Draining
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[level].append(future)
        self._grant()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(level)
            elif future in self._waiting[level]:
                self._waiting[level].remove(future)
                self._grant()
            raise

    def release(self, level: int) -> None:
        """Release a slot."""
        self._used[level] -= 1
        self._grant()

    def close(self) -> None:
        """Reject all waiting calls."""
        self._closed = True
        for queue in self._waiting:
            while queue:
                future = queue.popleft()
                if not future.done():
                    future.set_exception(Draining())

    def _grant(self) -> None:
        while not self._closed:
            for queue in self._waiting:
                while queue and queue[0].done():
                    queue.popleft()
            waiting = bool(self._waiting[ONLINE]), bool(self._waiting[OFFLINE])
            level = self._rules.pick(self._capacity, self.used, waiting, self._streak, self.max_offline)
            if level is None:
                return
            self._streak = self._streak + 1 if level == ONLINE and waiting[OFFLINE] else 0
            self._used[level] += 1
            self._waiting[level].popleft().set_result(None)


class QueueLimit:
    """The limit of one queue; every `acquire` needs exactly one `release`."""

    def __init__(self) -> None:
        self.paused = False
        self._limit = UNBOUNDED
        self._used = 0
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, *, paused: bool, concurrency: int | None) -> None:
        """Apply the queue's settings; running calls above a new limit continue."""
        self.paused = paused
        self._limit = UNBOUNDED if concurrency is None else concurrency
        self._changed.set()

    @property
    def available(self) -> int:
        """Return how many more calls may start."""
        return 0 if self.paused else max(0, self._limit - self._used)

    async def wait_available(self) -> None:
        """Wait until a call may start, or the process stops."""
        while not self.available and not self._closed:
            self._changed.clear()
            await self._changed.wait()

    async def acquire(self) -> bool:
        """Wait until a call may start and count it; False when the queue is paused meanwhile. Raises Draining."""
        while not self._closed:
            if self.paused:
                return False
            if self.available:
                self._used += 1
                return True
            self._changed.clear()
            await self._changed.wait()
        raise Draining

    def release(self) -> None:
        """Count the end of a call."""
        self._used -= 1
        self._changed.set()

    def close(self) -> None:
        """Reject all waiting calls: the process stops."""
        self._closed = True
        self._changed.set()


class AdaptiveLimit:
    """Limits the offline slots by the lag of the event loop."""

    def __init__(self, slots: CallSlots, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._monotonic = monotonic
        self._online_at = -RECENT_S
        self._task: asyncio.Task[None] | None = None

    def note_online(self) -> None:
        """Record that an online task was received."""
        self._online_at = self._monotonic()

    def start(self, supervisor: TaskSupervisor) -> None:
        """Start measuring the lag."""
        self._task = supervisor.spawn(self._watch(), name="adaptive-limit")

    async def close(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def observe_lag(self, lag_s: float) -> None:
        """Adjust the limit to one measurement of the lag."""
        slots, limit = self._slots, self._slots.max_offline
        if self._monotonic() - self._online_at > RECENT_S:
            limit = None
        elif lag_s > MAX_LAG_S:
            limit = max(MIN_SLOTS, (slots.capacity if limit is None else limit) // 2)
        elif limit is not None:
            limit += STEP
        if limit is not None and limit >= slots.capacity:
            limit = None
        if limit != slots.max_offline:
            slots.limit_offline(limit)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            self.observe_lag(loop.time() - due)


class IntakeGate:
    """Lets the consumers poll while there is no reason to pause."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._opened = asyncio.Event()
        self._opened.set()
        self._ended = False

    @property
    def pause_reasons(self) -> list[str]:
        """Return the reasons for which it is paused."""
        return sorted(self._reasons)

    def set_paused(self, why: str, closed: bool) -> None:
        """Add or remove a reason to pause."""
        if closed:
            self._reasons.add(why)
        else:
            self._reasons.discard(why)
        if self._reasons and not self._ended:
            self._opened.clear()
        else:
            self._opened.set()

    def close(self) -> None:
        """Open it permanently: the process stops."""
        self._ended = True
        self._opened.set()

    async def wait_open(self) -> None:
        """Wait until there is no reason to pause."""
        await self._opened.wait()
