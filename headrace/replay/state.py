"""State of a replay: its parameters and positions, in a small file that is replaced atomically.

A killed replay resumes at its last position. Tasks written after that are written again with the same ids, which the
scheduler recognises as duplicates.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from core.errors import ConfigError
from headrace.replay.choice import Choice
from headrace.replay.read import OffsetRange

VERSION = 1
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
SHOWN_IDS = 20


def new_name(now_ms: int) -> str:
    """Return a name of the current time and random digits: two replays of one second must not share their state."""
    return f"{datetime.fromtimestamp(now_ms / 1000, UTC):replay-%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Destination and changes of the tasks."""

    queue_to: str | None = None
    """A shadow queue; None: the queue of each original."""
    model_to: str | None = None
    callbacks: bool = False
    workers: bool = False
    """Whether the shadow queue is a pull queue, for workers such as `headrace replay serve`."""


@dataclass(slots=True, kw_only=True)
class State:
    """One replay."""

    name: str
    created_ms: int
    start_s: int
    choice: Choice
    target: Target
    spans: list[OffsetRange]
    widths: dict[str, int]
    """Queue → number of partitions of its tasks at the start: ids depend on it."""
    positions: dict[str, int] = field(default_factory=dict)
    written: int = 0
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished_ms: int | None = None

    def position(self, span: OffsetRange) -> int:
        """Return the next offset of a range."""
        return self.positions.get(_place(span), span.begin)

    def reached(self, span: OffsetRange, offset: int) -> None:
        """Store that everything before an offset is done."""
        self.positions[_place(span)] = offset

    def problem(self, reason: str, task_id: str) -> None:
        """Count a skipped task, and list the first ones."""
        found = self.problems.setdefault(reason, {"count": 0, "ids": []})
        found["count"] += 1
        if len(found["ids"]) < SHOWN_IDS:
            found["ids"].append(task_id)

    def expired(self, count: int) -> None:
        """Count records that were deleted before the replay reached them."""
        found = self.problems.setdefault("record_expired", {"count": 0, "ids": []})
        found["count"] += count

    @property
    def left_out(self) -> int:
        """Return the number of selected tasks that were skipped."""
        return sum(found["count"] for found in self.problems.values())

    def as_json(self) -> dict[str, Any]:
        """Return the state for the file and for --json."""
        return {"version": VERSION, **asdict(self), "choice": self.choice.as_json(), "spans": [*map(list, self.spans)]}


def file_of(folder: Path, name: str) -> Path:
    """Return the path of a replay's state file; raises ConfigError for an invalid name."""
    if not NAME.fullmatch(name):
        raise ConfigError("the name of a replay must be 1 to 64 characters of a-z, A-Z, 0-9, _ and -")
    return folder / "replays" / f"{name}.json"


def load(path: Path) -> State | None:
    """Read a state; None if the file does not exist. Raises ConfigError for an invalid file."""
    try:
        saved = orjson.loads(path.read_bytes())
        if saved.pop("version") != VERSION:
            raise ConfigError(f"{path} was written by another version of Headrace")
        return State(
            **{
                **saved,
                "choice": Choice.from_json(saved["choice"]),
                "target": Target(**saved["target"]),
                "spans": [OffsetRange(*span) for span in saved["spans"]],
            }
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not the state of a replay") from error


def save(path: Path, state: State) -> None:
    """Replace the file, so that a crash leaves the old one or the new one; raises ConfigError."""
    draft = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as out:
            out.write(orjson.dumps(state.as_json(), option=orjson.OPT_INDENT_2))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"the state of the replay cannot be stored in {path}: {error.strerror}") from error


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Lock a state for this process; raises ConfigError if another process has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the state of the replay cannot be stored in {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process runs the replay of {path}") from None
        yield
    finally:
        os.close(lock)


def _place(span: OffsetRange) -> str:
    return f"{span.level}/{span.partition}"
