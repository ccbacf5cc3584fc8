"""Notes when the machine stood still during a campaign: such a pause acts on every role as if it had been frozen."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from tests.fault.campaign.cluster import now_ms
from tests.fault.campaign.faults import Fault

LOOK_S = 0.2
LONGEST_S = 1.5
"""A look that comes later than this was held up by the machine, not by the work of this process."""
MACHINE = "machine"


@contextlib.contextmanager
def standstills() -> Iterator[list[Fault]]:
    """Collect them until the block ends; their numbers are 0, as the campaign did not draw them."""
    found: list[Fault] = []
    ended = threading.Event()

    def watch() -> None:
        looked = now_ms()
        while not ended.wait(LOOK_S):
            last, looked = looked, now_ms()
            if looked - last > LONGEST_S * 1_000:
                found.append(Fault(0, "freeze", MACHINE, last, freeze_s=(looked - last) / 1_000, until_ms=looked))

    watcher = threading.Thread(target=watch, name="standstills", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
