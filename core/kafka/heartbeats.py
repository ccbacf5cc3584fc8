"""When a consumer group has last confirmed a member, which aiokafka does not tell.

A module of its own, for schedulers and dispatchers: both must know that they may have lost what they go on reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_heartbeat(consumer: Any, confirmed: Callable[[], None]) -> None:
    """Call `confirmed` at each heartbeat of a started consumer that its group confirms; a second call does nothing.

    All of this leans on private parts of aiokafka, which a canary test of the schedulers holds.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    beat = coordinator._do_heartbeat  # noqa: SLF001
    if getattr(beat, "noted", False):
        return

    async def noting() -> bool:
        taken: bool = await beat()
        if taken:
            confirmed()
        return taken

    noting.noted = True  # type: ignore[attr-defined]  # a mark of ours
    coordinator._do_heartbeat = noting  # noqa: SLF001
