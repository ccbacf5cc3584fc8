"""Repeat a call while Kafka, or another service that it needs, is unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.errors import Unavailable

T = TypeVar("T")


def _ignore(_: Unavailable) -> None:
    """Report nothing."""


async def retry_unavailable(
    call: Callable[[], Awaitable[T]],
    *,
    delay_s: float,
    tries: int | None = None,
    on_error: Callable[[Unavailable], None] = _ignore,
) -> T:
    """Return what a call returns, once it does not raise Unavailable; every other error is raised at once.

    Args:
        call: makes the awaitable of one try.
        delay_s: seconds between two tries.
        tries: raise the error of the last of so many tries; None: retry until the task is cancelled.
        on_error: is called with the error of each try that is followed by another one, to log it.
    """
    failed = 0
    while True:
        try:
            return await call()
        except Unavailable as error:
            failed += 1
            if failed == tries:
                raise
            on_error(error)
        await asyncio.sleep(delay_s)
