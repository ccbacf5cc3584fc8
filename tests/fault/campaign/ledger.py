"""What the producers' side knows: every id that was acknowledged, and the answers that were given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """What a held request was answered with: status and body, for a whole stream its text."""

    status: int
    body: bytes
    content_type: str


@dataclass(slots=True)
class Accepted:
    """One acknowledged task; `answer` only where a client waited until the end."""

    shape: str
    mode: str
    answer: Answer | None = None


UNCONFIRMED = b"did not confirm"
"""In a 503 that names the task: nothing was acknowledged, and if it was written it is withdrawn."""


def is_unconfirmed(status: int, text: bytes) -> bool:
    """Tell whether an answer that names a task acknowledges nothing."""
    return status == 503 and UNCONFIRMED in text


@dataclass(slots=True)
class Ledger:
    """The acknowledged tasks by id, and what became of the other requests."""

    accepted: dict[str, Accepted] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    """Requests that were not acknowledged: by status, or by the error of the connection."""
    without_advice: int = 0
    """503 without Retry-After: a client would not know when to come again."""
    shapes: Counter[str] = field(default_factory=Counter)
