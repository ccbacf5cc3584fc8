"""Calls beyond one per attempt: which blow explains each?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.fault.campaign.cluster import BROKER
from tests.fault.campaign.evidence import Evidence
from tests.fault.campaign.faults import Fault

TICK_MS = 1_500
"""The commit interval of half a second, and what claim and commit may take on a busy machine."""
REJOIN_MS = 15_000
"""After the return of a broker or of a frozen dispatcher: until the group has settled who reads which partition."""


@dataclass(slots=True)
class Repeats:
    """Calls that were made again within the same attempt, by what explains them."""

    causes: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Count them all."""
        return self.causes.total() + len(self.unexplained)


def explain(arrivals: Mapping[str, Sequence[int]], evidence: Evidence, faults: Sequence[Fault]) -> Repeats:
    """Find a cause for each call beyond one per attempt; `arrivals` are epoch ms by task id."""
    repeats = Repeats()
    for one, times in arrivals.items():
        if one not in evidence.results:
            continue
        attempts = evidence.results[one][0][1]["attempt"]
        extra = len(times) - attempts
        if extra <= 0:
            continue
        written_twice = any(evidence.work[one, attempt] > 1 for attempt in range(1, attempts + 1))
        cause = "work record written twice" if written_twice else _cause(times, faults)
        if cause is None:
            repeats.unexplained.append(f"{one}: {len(times)} calls in {attempts} attempts at {list(times)}")
        else:
            repeats.causes[cause] += extra
    return repeats


def _cause(times: Sequence[int], faults: Sequence[Fault]) -> str | None:
    """Name the blow that fell within a commit tick after one of the calls; the last call is the repeat itself."""
    for cause, blows in (
        ("dispatcher killed", [f for f in faults if f.role == "dispatcher" and f.kind == "kill"]),
        ("dispatcher frozen", [f for f in faults if f.role == "dispatcher" and f.kind == "freeze"]),
        ("broker killed", [f for f in faults if f.role == BROKER]),
    ):
        for blow in blows:
            until = blow.at_ms if blow.kind == "kill" and blow.role != BROKER else (blow.until_ms or 0) + REJOIN_MS
            if any(blow.at_ms - TICK_MS <= at <= until for at in times[:-1]):
                return cause
    return None
