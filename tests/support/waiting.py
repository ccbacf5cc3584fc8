"""Wait for something to become true: by looking again and again, with a bound, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.02


def eventually(condition: Callable[[], object], *, within_s: float = 20, what: str = "the condition") -> None:
    """Return when the condition is true; fail the test when it is not in time."""
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"{what} was not true within {within_s:g} s"
        time.sleep(POLL_S)


async def eventually_async(
    condition: Callable[[], object], *, within_s: float = 20, what: str = "the condition"
) -> None:
    """Do the same without holding the event loop."""
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"{what} was not true within {within_s:g} s"
        await asyncio.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended but was not yet awaited by its parent does not."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
