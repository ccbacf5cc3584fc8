"""Selection rules of a replay, applied to record headers where possible, otherwise to the value. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from core.errors import ConfigError
from schemas import ids
from schemas.records import Task

Headers = Sequence[tuple[str, bytes | None]]
Ending = Literal["completed", "failed", "cancelled", "none"]
ENDINGS: tuple[Ending, ...] = ("completed", "failed", "cancelled", "none")
"""Outcomes of a task; `none`: it has no result yet: queued, running, or a duplicate."""
MAX_IDS = 100_000
"""Limit of --ids: they are part of the state file, which is rewritten at every step."""
_AGO = re.compile(r"-([0-9]{1,9})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The requested filters; empty means all."""

    from_ms: int | None = None
    to_ms: int | None = None
    levels: tuple[int, ...] = (0, 1)
    queues: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    replays: bool = False
    """Whether replayed tasks are selected as well; tasks given by id always are."""

    def as_json(self) -> dict[str, Any]:
        """Return the filters for the state file."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Choice:
        """Parse the output of `as_json`."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items() if k in known}
        return cls(**values)


class Matcher:
    """Applies the filters to records, before decoding where possible, because most are not selected."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._queues = frozenset(name.encode() for name in choice.queues)
        self._owners = frozenset(name.encode() for name in choice.owners)
        self._ids = frozenset(choice.ids)

    def in_time(self, at_ms: int) -> bool:
        """Return whether a record is within the requested time."""
        choice = self._choice
        return (choice.from_ms is None or at_ms >= choice.from_ms) and (choice.to_ms is None or at_ms < choice.to_ms)

    def by_headers(self, headers: Headers) -> bool:
        """Return whether a record may be selected, by its headers."""
        if not self._queues and not self._owners:
            return True
        for name, value in headers:
            if (name == "x-queue" and self._queues and value not in self._queues) or (
                name == "x-owner" and self._owners and value not in self._owners
            ):
                return False
        return True

    def by_task(self, task_id: str, task: Task, *, model: str | None) -> bool:
        """Return whether a decoded task is selected, regardless of its outcome."""
        choice = self._choice
        if self._ids and task_id not in self._ids:
            return False
        if choice.queues and task["queue"] not in choice.queues:
            return False
        if choice.owners and task["owner"] not in choice.owners:
            return False
        if choice.models and model not in choice.models:
            return False
        return choice.replays or bool(self._ids) or task["replay_of"] is None

    def by_ending(self, ending: str) -> bool:
        """Return whether an outcome is selected."""
        return not self._choice.endings or ending in self._choice.endings


def moment_ms(text: str, *, now_ms: int, field: str) -> int:
    """Read a time: -90s, -30m, -2h, -7d, now, or ISO 8601, in UTC without a time zone; raises ConfigError."""
    if text == "now":
        return now_ms
    if ago := _AGO.fullmatch(text):
        return max(0, now_ms - int(ago[1]) * _UNIT_MS[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{field} {text[:40]!r} must be a time such as -2h, -7d or 2026-01-31T12:00:00Z") from None
    at_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms < 0:
        raise ConfigError(f"{field} {text[:40]!r} is before 1970")
    return at_ms


def read_ids(texts: Iterable[str]) -> tuple[str, ...]:
    """Parse ids in any of their forms, one per line; raises ConfigError."""
    found: dict[str, None] = {}
    for number, text in enumerate(texts, 1):
        if not (one := text.strip()):
            continue
        try:
            found[str(ids.parse(one))] = None
        except ids.IdError as error:
            raise ConfigError(f"id {number}: {error}") from None
        if len(found) > MAX_IDS:
            raise ConfigError(f"more than {MAX_IDS:,} ids; select by time, queue or tenant instead")
    return tuple(found)
