"""Limits on concurrent calls: call slots, the limit of each queue, an adaptive limit for offline calls, pause reasons.

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
"""Lateness that an online call may meet at each of its few steps here."""
MIN_SLOTS = 8
"""Enough to keep a core busy, and to fill each write of outcomes with several."""
STEP = 2
RECENT_S = 10.0
"""Without an online task for so long, there is nobody to make room for."""


class Draining(Exception):
    """The process stops; no slot is given any more."""


@dataclass(frozen=True, slots=True)
class SlotRules:
    """The choice between the levels.

    Offline never takes the last `share` of the slots, so an online task starts at once amid an offline flood. While
    offline tasks wait and hold less than their own share, the next slot is theirs, so online cannot starve them.
    """

    share: float

    def reserved(self, capacity: int) -> int:
        """Return how many slots the share is."""
        return int(capacity * self.share)

    def max_offline(self, capacity: int, bound: int | None) -> int:
        """Return how many slots offline tasks may have; a bound from outside never takes their own share."""
        most = capacity - self.reserved(capacity)
        return most if bound is None else min(most, max(bound, self.reserved(capacity)))

    def pick(
        self,
        capacity: int,
        used: tuple[int, int],
        waiting: tuple[bool, bool],
        streak: int,
        bound: int | None = None,
    ) -> int | None:
        """Return the level that gets a slot now; `streak` counts online grants in a row while offline waited."""
        if used[ONLINE] + used[OFFLINE] >= capacity:
            return None
        if waiting[OFFLINE] and used[OFFLINE] < self.max_offline(capacity, bound):
            due = used[OFFLINE] < self.reserved(capacity) or self._offline_by_turn(capacity, used, streak)
            if due or not waiting[ONLINE]:
                return OFFLINE
        return ONLINE if waiting[ONLINE] else None

    def available(self, level: int, capacity: int, used: tuple[int, int], bound: int | None = None) -> int:
        """Return how many slots a level could take now."""
        free = capacity - used[ONLINE] - used[OFFLINE]
        if level == OFFLINE:
            free = min(free, self.max_offline(capacity, bound) - used[OFFLINE])
        return max(0, free)

    def _offline_by_turn(self, capacity: int, used: tuple[int, int], streak: int) -> bool:
        """Share by turns where the slots are too few for a share in slots."""
        by_turns = self.share > 0 and self.reserved(capacity) == 0 and used[OFFLINE] == 0
        return by_turns and (streak + 1) * self.share >= 1


class CallSlots:
    """Slots to wait for; every acquire that returned needs exactly one release."""

    def __init__(self, *, share: float, capacity: int = 0) -> None:
        self._rules = SlotRules(share)
        self._capacity = capacity
        self._used = [0, 0]
        self._waiting: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())
        self._streak = 0
        self._closed = False
        self.max_offline: int | None = None
        """Most offline slots at once where the process itself is the bottleneck."""

    @property
    def used(self) -> tuple[int, int]:
        """Return the slots in use by level."""
        return self._used[ONLINE], self._used[OFFLINE]

    @property
    def capacity(self) -> int:
        """Return how many slots there are now."""
        return self._capacity

    def available(self, level: int) -> int:
        """Return how many more of a level could start at once."""
        return max(
            0, self._rules.available(level, self._capacity, self.used, self.max_offline) - len(self._waiting[level])
        )

    def resize(self, capacity: int) -> None:
        """Change the number of slots; what runs above it goes on, and its slots are not given again."""
        self._capacity = capacity
        self._grant()

    def limit_offline(self, most: int | None) -> None:
        """Change how many slots offline tasks may have, None for all but the online share; what runs goes on."""
        self.max_offline = most
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
        """Give a slot back."""
        self._used[level] -= 1
        self._grant()

    def close(self) -> None:
        """Send everybody who waits away."""
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
    """Room for the calls of one queue; every `acquire` needs exactly one `release`."""

    def __init__(self) -> None:
        self.paused = False
        self._limit = UNBOUNDED
        self._used = 0
        self._closed = False
        self._changed = asyncio.Event()

    def set(self, *, paused: bool, concurrency: int | None) -> None:
        """Follow the queue's settings; calls above a new limit go on, and nobody takes their place."""
        self.paused = paused
        self._limit = UNBOUNDED if concurrency is None else concurrency
        self._changed.set()

    @property
    def available(self) -> int:
        """Return how many more calls may begin."""
        return 0 if self.paused else max(0, self._limit - self._used)

    async def wait_available(self) -> None:
        """Wait until there is room, or the process stops."""
        while not self.available and not self._closed:
            self._changed.clear()
            await self._changed.wait()

    async def acquire(self) -> bool:
        """Wait for room and take it; False when the queue is paused meanwhile. Raises Draining."""
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
        """End a call."""
        self._used -= 1
        self._changed.set()

    def close(self) -> None:
        """Send everybody who waits away: the process stops."""
        self._closed = True
        self._changed.set()


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
