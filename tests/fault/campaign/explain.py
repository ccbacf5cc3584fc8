"""Calls beyond one per attempt: which blow explains each?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.fault.campaign.cluster import BROKER
from tests.fault.campaign.evidence import Evidence
from tests.fault.campaign.faults import Fault
from tests.fault.campaign.standstills import MACHINE

TICK_MS = 2_500
"""The commit interval of half a second, and what claim and commit may take on a busy machine."""
SPOKEN_MS = 1_000
"""What a worker said so shortly before a blow may not have been in the log yet when it fell."""
CALL_MS = 15_000
"""A call that began this long before the kill of its dispatcher may still have run."""
ARRIVAL_MS = 1_000
"""A call that stood in the sockets when its dispatcher was killed is counted by the model server a little later."""
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
        spoken = [evidence.spoken_ms.get((one, attempt)) for attempt in range(1, attempts + 1)]
        cause = "work record written twice" if written_twice else _cause(times, spoken, faults)
        if cause is None:
            repeats.unexplained.append(f"{one}: {len(times)} calls in {attempts} attempts at {list(times)}")
        else:
            repeats.causes[cause] += extra
    return repeats


def _cause(times: Sequence[int], spoken: Sequence[int | None], faults: Sequence[Fault]) -> str | None:
    """Name the blow that explains a repeat; the last call is the repeat itself.

    None does of an attempt of which a worker had spoken, before the blow fell or before the repeat began: such work is
    passed over. Only a dispatcher that was frozen begins with what it had read before.

    Args:
        spoken: for each attempt when its worker first spoke of it; None where it never did.
    """
    first = times[:-1]
    faults = [one for one in faults if any(at is None or at >= one.at_ms - SPOKEN_MS for at in spoken)]
    last = spoken[-1]
    if last is not None and times[-1] > last + TICK_MS:
        thawed = [one for one in faults if one.role in ("dispatcher", MACHINE) and one.kind == "freeze"]
        begins = any(one.at_ms <= times[-1] <= (one.until_ms or 0) + TICK_MS for one in thawed)
        return f"{thawed[0].role} frozen" if begins else None
    for blow in (fault for fault in faults if fault.role == "dispatcher" and fault.kind == "kill"):
        if any(blow.at_ms - CALL_MS <= at <= blow.at_ms + ARRIVAL_MS for at in first):
            return "dispatcher killed"
    for cause, blows in (
        ("dispatcher frozen", [f for f in faults if f.role == "dispatcher" and f.kind == "freeze"]),
        ("broker killed", [f for f in faults if f.role == BROKER]),
        ("machine frozen", [f for f in faults if f.role == MACHINE]),
    ):
        for blow in blows:
            if any(blow.at_ms - TICK_MS <= at <= (blow.until_ms or 0) + REJOIN_MS for at in first):
                return cause
    return None
