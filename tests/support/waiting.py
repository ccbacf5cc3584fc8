"""Wait for something to become true: by looking again and again, with a bound, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

FIRST_POLL_S, POLL_S = 0.001, 0.02
LIMIT_S = 180.0
"""What a test waits at most, unless it says otherwise: ten times what restarts of a role take on a busy machine."""
STANDSTILL_S = 1.0
"""Of the time between two looks no more counts: the machine stood still for the rest of it."""


def eventually(condition: Callable[[], object], *, within_s: float = LIMIT_S, what: str = "the condition") -> None:
    """Return when the condition is true; fail the test when it is not in time."""
    for pause_s in _pauses(within_s):
        if condition():
            return
        time.sleep(pause_s)
    assert condition(), f"{what} was not true within {within_s:g} s"


async def eventually_async(
    condition: Callable[[], object], *, within_s: float = LIMIT_S, what: str = "the condition"
) -> None:
    """Do the same without holding the event loop."""
    for pause_s in _pauses(within_s):
        if condition():
            return
        await asyncio.sleep(pause_s)
    assert condition(), f"{what} was not true within {within_s:g} s"


async def until(
    look: Callable[[], Awaitable[T]],
    wanted: Callable[[T], object] = bool,
    *,
    within_s: float = LIMIT_S,
    poll_s: float = 0,
) -> T:
    """Look, for example over HTTP, until what is found is as wanted, and return it."""
    for pause_s in _pauses(within_s):
        if wanted(found := await look()):
            return found
        await asyncio.sleep(max(poll_s, pause_s))
    found = await look()
    assert wanted(found), f"after {within_s:g} s it is still {found!r}"
    return found


def _pauses(within_s: float) -> Iterator[float]:
    """Yield how long to pause after each look, until the time is used up."""
    waited_s, pause_s, looked_s = 0.0, FIRST_POLL_S, time.monotonic()
    while waited_s < within_s:
        yield pause_s
        pause_s = min(2 * pause_s, POLL_S)
        now_s = time.monotonic()
        waited_s += min(now_s - looked_s, STANDSTILL_S)
        looked_s = now_s


async def turns(count: int = 20) -> None:
    """Let everybody do what there is to do, where nothing waits for a network or for time."""
    for _ in range(count):
        await asyncio.sleep(0)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not yet awaited by its parent does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
