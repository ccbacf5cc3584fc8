"""Which round of a delivery counts: one that was asked for ends what waits of an earlier one. Pure.

The earlier one would be posted after the later one was accepted, and a 4xx for it would make "failed" of "delivered".
Known to every sender by the topic of the 410 marks, for the partitions of a retry topic may be anybody's. A mark is
written once the later round is safe in its topic and taken up. When in doubt a delivery is posted: a mark that is
missing, forgotten or set by a clock that goes wrong costs a repetition under the same webhook-id.
"""

from __future__ import annotations

from core.bounded_set import BoundedDict
from schemas.records import Delivery

REMEMBERED = 50_000
"""Deliveries that were asked for again within the eight days of the topic; 10 to 20 MB."""


def is_manual(delivery: Delivery) -> bool:
    """Tell whether this begins a round that somebody asked for: nothing has moved its time since."""
    return delivery["manual"] and delivery["due_ms"] == delivery["created_ms"]


def is_mark(delivery: Delivery) -> bool:
    """Tell the mark of a round from that of a 410."""
    return delivery["state"] == "pending"


class ManualResends:
    """The newest round of what was asked for again."""

    def __init__(self, at_least: int = REMEMBERED) -> None:
        self._begun_ms: BoundedDict[str, int] = BoundedDict(at_least=at_least)

    def __len__(self) -> int:
        return len(self._begun_ms)

    def fold(self, mark: Delivery) -> None:
        """Take in a mark; the last that was written counts, whatever the clocks say."""
        self._begun_ms[mark["id"]] = mark["created_ms"]

    def is_superseded(self, delivery: Delivery) -> bool:
        """Tell whether a later round has been taken up, so that this one need not go on."""
        return not is_manual(delivery) and delivery["created_ms"] < self._begun_ms.get(delivery["id"], 0)
