"""What a replay would do, counted: tasks by queue, level, model and ending, and what they would cost. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from core.prices import price_of, text
from core.settings.models import ModelSettings
from headrace.replay.selection import Selection
from schemas.common import Usage
from schemas.topics import level_name


class TotalsGroup(NamedTuple):
    """What tasks are counted by."""

    queue: str
    level: int
    model: str | None
    ending: str


class Cost(NamedTuple):
    """An estimate for one model: `counted` of its tasks had token counts, the others are taken at their mean."""

    model: str | None
    tasks: int
    counted: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    currency: str | None


class Tally:
    """Counts picks."""

    def __init__(self) -> None:
        self.groups: Counter[TotalsGroup] = Counter()
        self.stored = 0
        """Tasks whose body lies in the object store."""
        self.callbacks = 0
        self._tasks: Counter[str | None] = Counter()
        self._known: dict[str | None, list[int]] = {}

    def add(self, pick: Selection) -> None:
        """Count one."""
        task, used = pick.task, pick.used
        self.groups[TotalsGroup(task["queue"], pick.level, pick.model, used.ending if used else "none")] += 1
        self.stored += task["data_ref"] is not None
        self.callbacks += task["callback_url"] is not None
        self._tasks[pick.model] += 1
        # One that failed has used nothing, and may well use something when it is tried again.
        if used is not None and used.ending == "completed" and used.prompt + used.completion:
            known = self._known.setdefault(pick.model, [0, 0, 0])
            known[0] += 1
            known[1] += used.prompt
            known[2] += used.completion

    @property
    def total(self) -> int:
        """Return how many tasks there are."""
        return self.groups.total()

    def costs(self, prices: Mapping[str, ModelSettings], *, model_to: str | None = None) -> list[Cost]:
        """Estimate by model; `model_to` answers in place of them all."""
        found = []
        for model, tasks in sorted(self._tasks.items(), key=lambda item: item[0] or ""):
            counted, prompt, completion = self._known.get(model, (0, 0, 0))
            if counted:
                prompt, completion = prompt * tasks // counted, completion * tasks // counted
            usage: Usage = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
            price = price_of(usage, prices.get(model_to or model or "")) if counted else None
            found.append(
                Cost(
                    model,
                    tasks,
                    counted,
                    prompt,
                    completion,
                    price.total if price else None,
                    price.currency if price else None,
                )
            )
        return found

    def as_json(self, prices: Mapping[str, ModelSettings], *, model_to: str | None = None) -> dict[str, Any]:
        """Return everything for --json."""
        return {
            "tasks": self.total,
            "groups": [
                {**group._asdict(), "level": level_name(group.level), "tasks": count}
                for group, count in sorted(self.groups.items(), key=lambda item: _order(item[0]))
            ],
            "estimate": [
                {**cost._asdict(), "cost": None if cost.cost is None else text(cost.cost)}
                for cost in self.costs(prices, model_to=model_to)
            ],
            "stored_bodies": self.stored,
            "with_callback": self.callbacks,
        }


def _order(group: TotalsGroup) -> tuple[str, int, str, str]:
    return group.queue, group.level, group.model or "", group.ending
