"""A set and a dictionary of bounded size, for de-duplication: the oldest entries are dropped first. Pure.

Entries are held in two generations. When the newer generation is full, it becomes the older one and the entries of the
older one are dropped; so adding costs no more than in a plain set, and no order has to be stored per entry.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar, overload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class BoundedSet(Generic[K]):
    """Holds at least the newest `at_least` keys, and at most twice as many."""

    __slots__ = ("_limit", "_newer", "_older")

    def __init__(self, *, at_least: int) -> None:
        self._limit = at_least
        self._newer: set[K] = set()
        self._older: set[K] = set()

    def __contains__(self, key: K) -> bool:
        return key in self._newer or key in self._older

    def __len__(self) -> int:
        return len(self._newer | self._older)

    def add(self, key: K) -> None:
        """Add a key, or renew one that is in the set."""
        self._newer.add(key)
        if len(self._newer) >= self._limit:
            self._newer, self._older = set(), self._newer

    def discard(self, key: K) -> None:
        """Remove a key if it is in the set."""
        self._newer.discard(key)
        self._older.discard(key)

    def clear(self) -> None:
        """Remove all keys."""
        self._newer, self._older = set(), set()


class BoundedDict(Generic[K, V]):
    """Holds at least the newest `at_least` entries, and at most twice as many."""

    __slots__ = ("_limit", "_newer", "_older")

    def __init__(self, *, at_least: int) -> None:
        self._limit = at_least
        self._newer: dict[K, V] = {}
        self._older: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._newer or key in self._older

    def __len__(self) -> int:
        return len(self._newer.keys() | self._older.keys())

    def __setitem__(self, key: K, value: V) -> None:
        self._newer[key] = value
        if len(self._newer) >= self._limit:
            self._newer, self._older = {}, self._newer

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: D | None = None) -> V | D | None:
        """Return the value of a key, or the default."""
        return self._newer[key] if key in self._newer else self._older.get(key, default)

    def discard(self, key: K) -> None:
        """Remove a key if it is there."""
        self._newer.pop(key, None)
        self._older.pop(key, None)

    def clear(self) -> None:
        """Remove all entries."""
        self._newer, self._older = {}, {}
