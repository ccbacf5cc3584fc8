"""What a campaign found: as a table for people, as JSON for the record."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.fault.campaign.audit import Findings
from tests.fault.campaign.explain import Repeats
from tests.fault.campaign.faults import Fault
from tests.fault.campaign.ledger import Ledger


@dataclass(slots=True)
class Report:
    """One finished campaign."""

    seed: int
    seconds: float
    faults: list[Fault]
    ledger: Ledger
    results: int
    letters: Counter[str]
    states: Counter[str]
    findings: Findings
    repeats: Repeats
    unasked: int
    standstills: Sequence[Fault] = ()

    @property
    def unrecovered(self) -> list[Fault]:
        """List the blows after which no new task went through."""
        return [fault for fault in self.faults if fault.first_s is None or fault.whole_s is None]

    @property
    def kept(self) -> bool:
        """Tell whether every promise was kept."""
        return self.findings.clean and not self.unrecovered and not self.repeats.unexplained

    def table(self) -> str:
        """Render it as Markdown."""
        kinds = Counter(f"{fault.kind} {fault.role}" for fault in self.faults)
        found = self.findings
        rows = [
            ("seed, faults, time", f"{self.seed}, {len(self.faults)}, {self.seconds:.0f} s"),
            ("faults by kind", ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))),
            ("standstills of the machine", quantiles([f.freeze_s for f in self.standstills])),
            ("acknowledged tasks", f"{len(self.ledger.accepted)}"),
            ("result records", f"{self.results}"),
            ("outcomes", ", ".join(f"{count} {state}" for state, count in self.states.most_common())),
            ("lost", f"{len(found.lost)}"),
            ("double", f"{len(found.double)}"),
            ("never ended", f"{len(found.open)}"),
            ("rows that disagree with their result", f"{len(found.rows)}"),
            ("tasks not accounted for once", f"{len(found.usage)}"),
            ("answers that differ from the stored result", f"{len(found.answers)}"),
            ("readings that differ from the stored result", f"{len(found.readers)}"),
            ("calls made again within an attempt", self._repeats()),
            ("recovery, next new task: p50, p99, longest", quantiles([f.first_s for f in self.faults])),
            ("recovery, all of 8 new tasks: p50, p99, longest", quantiles([f.whole_s for f in self.faults])),
        ]
        return "\n".join(["| what | figure |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])

    def problems(self) -> list[str]:
        """List everything that is wrong, a line each."""
        found = dataclasses.asdict(self.findings)
        lines = [f"{sort}: {one}" for sort, several in found.items() for one in several]
        lines += [f"unexplained repeat: {one}" for one in self.repeats.unexplained]
        return lines + [f"not recovered: {fault}" for fault in self.unrecovered]

    def as_json(self) -> dict[str, Any]:
        """Give everything for a file."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "kept": self.kept,
            "accepted": len(self.ledger.accepted),
            "results": self.results,
            "states": dict(self.states),
            "dead_letters": dict(self.letters),
            "shapes": dict(self.ledger.shapes),
            "refused": dict(self.ledger.refused),
            "refused_without_retry_after": self.ledger.without_advice,
            "processes_ended_unasked": self.unasked,
            "repeats": dict(self.repeats.causes),
            "problems": self.problems(),
            "standstills": [dataclasses.asdict(fault) for fault in self.standstills],
            "faults": [dataclasses.asdict(fault) for fault in self.faults],
        }

    def _repeats(self) -> str:
        causes = [f"{count} {cause}" for cause, count in self.repeats.causes.most_common()]
        if self.repeats.unexplained:
            causes.append(f"{len(self.repeats.unexplained)} unexplained")
        return f"{self.repeats.total}" + (f" ({', '.join(causes)})" if causes else "")


def quantiles(seconds: Sequence[float | None]) -> str:
    """Render median, 99th percentile and maximum."""
    known = sorted(one for one in seconds if one is not None)
    if not known:
        return "none"
    p99 = statistics.quantiles(known, n=100, method="inclusive")[98] if len(known) > 1 else known[0]
    return f"{statistics.median(known):.1f} s, {p99:.1f} s, {known[-1]:.1f} s"
