"""Count the tasks of a replay by queue, level, model and outcome, and estimate the cost. Pure."""

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
    """Grouping key of the counts."""

    queue: str
    level: int
    model: str | None
    ending: str


class Cost(NamedTuple):
    """Cost estimate of one model: `counted` tasks had token counts, the others are assumed at their mean."""

    model: str | None
    tasks: int
    counted: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    currency: str | None


class Tally:
    """Counts selected tasks."""

    def __init__(self) -> None:
        self.groups: Counter[TotalsGroup] = Counter()
        self.stored = 0
        """Tasks whose body is in the object store."""
        self.callbacks = 0
        self._tasks: Counter[str | None] = Counter()
        self._known: dict[str | None, list[int]] = {}

    def add(self, pick: Selection) -> None:
        """Count one task."""
        task, used = pick.task, pick.used
        self.groups[TotalsGroup(task["queue"], pick.level, pick.model, used.ending if used else "none")] += 1
        self.stored += task["data_ref"] is not None
        self.callbacks += task["callback_url"] is not None
        self._tasks[pick.model] += 1
        # A failed task has no usage, but may have some when it runs again.
        if used is not None and used.ending == "completed" and used.prompt + used.completion:
            known = self._known.setdefault(pick.model, [0, 0, 0])
            known[0] += 1
            known[1] += used.prompt
            known[2] += used.completion

    @property
    def total(self) -> int:
        """Return the number of tasks."""
        return self.groups.total()

    def costs(self, prices: Mapping[str, ModelSettings], *, model_to: str | None = None) -> list[Cost]:
        """Return the estimate per model; `model_to` replaces all models."""
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
        """Return the totals for --json."""
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
