"""Compare an answer with the one that a page shows: what differs from run to run only has to be of the same kind."""

from __future__ import annotations

import re
from typing import Any

ANYTHING = "…"
VOLATILE = {
    "content",
    "created",
    "id",
    "finish_reason",
    "timestamp",
    "start_time",
    "expire_time",
    "running_time",
    "completed_time",
    "completion_tokens",
    "prompt_tokens",
    "total_tokens",
    "cached_tokens",
}
_TASK = re.compile(r"TASK-(\d+)-([01])-([BSCPKR])-\d{12}-\d{4}-\d{6}")


def assert_alike(shown: Any, found: Any, *, at: str = "answer") -> None:
    """Fail when an answer has other members, other kinds of values, or other values where they do not vary."""
    if shown == ANYTHING:
        return
    assert _kind(shown) == _kind(found), f"{at}: the page shows {shown!r}, found {found!r}"
    if isinstance(shown, dict):
        assert list(shown) == list(found), f"{at}: the page shows the members {list(shown)}, found {list(found)}"
        for name in shown:
            assert_alike(shown[name], found[name], at=f"{at}.{name}")
    elif isinstance(shown, list):
        assert len(shown) == len(found), f"{at}: the page shows {len(shown)} items, found {len(found)}"
        for index, pair in enumerate(zip(shown, found, strict=True)):
            assert_alike(*pair, at=f"{at}[{index}]")
    elif at.rpartition(".")[2] not in VOLATILE:
        assert _plain(shown) == _plain(found), at


def _kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def _plain(value: Any) -> Any:
    """Leave the time, place and serial of task ids out, and ports."""
    if not isinstance(value, str):
        return value
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", _TASK.sub(r"TASK-\1-\2-\3", value))
