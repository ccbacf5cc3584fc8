"""The order of an owner's tasks in the read model: keys that sort newest first, and what a listing filters by. Pure.

A row's record says all of it in its headers, so an entry is put without decoding the row. Only rows of real tasks carry
`x-created-ms`: duplicates, idempotency keys and early cancels have no entry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from schemas.headers import CREATED, TYPE
from schemas.records import STATES, State

PREFIX = b"\x01"
"""Apart from task ids, which are letters, and from the store's own keys, which begin with a zero byte."""
_LENGTH = struct.Struct(">H")
_NEWEST_FIRST = struct.Struct(">Q")
_LATEST_MS = (1 << 63) - 1
_CODES: dict[State, bytes] = {state: b"%d" % number for number, state in enumerate(STATES)}
_BY_TYPE = {TYPE + b"task." + state.encode(): code for state, code in _CODES.items()}


class ListingPosition(NamedTuple):
    """A task's place in the order."""

    created_ms: int
    id: str
    """TASK- form."""


class Filters(NamedTuple):
    """What an entry must have; None means any."""

    states: frozenset[State] | None = None
    queue: str | None = None
    level: int | None = None

    def match(self, value: bytes) -> bool:
        """Tell whether an entry's value passes."""
        if self.states is not None and STATES[value[0] - 48] not in self.states:
            return False
        if self.level is not None and value[1] - 48 != self.level:
            return False
        return self.queue is None or value[2:] == self.queue.encode()


def entry(key: bytes, headers: Iterable[tuple[str, bytes | None]]) -> tuple[bytes, bytes] | None:
    """Return the entry of a status record; None when it is no task or has no owner."""
    found: Mapping[str, bytes | None] = dict(headers)
    created, owner = found.get(CREATED), found.get("x-owner")
    code = _BY_TYPE.get(found.get("ce_type") or b"")
    if created is None or owner is None or code is None or not created.isdigit():
        return None
    value = code + (found.get("x-level") or b"0") + (found.get("x-queue") or b"")
    return _of(owner) + _NEWEST_FIRST.pack(_LATEST_MS - min(int(created), _LATEST_MS)) + key, value


def entry_key(owner: str, position: ListingPosition) -> bytes:
    """Return the key of a task's entry."""
    return since(owner, position.created_ms) + position.id.encode()


def since(owner: str, created_ms: int) -> bytes:
    """Return a key that all entries of an owner follow that were created at this time or earlier, and no others."""
    return _of(owner.encode()) + _NEWEST_FIRST.pack(_LATEST_MS - max(-1, min(created_ms, _LATEST_MS)))


def bounds(owner: str, *, from_ms: int | None, before_ms: int | None) -> tuple[bytes, bytes]:
    """Return the keys between which the entries created at `from_ms` or later and before `before_ms` lie."""
    first = since(owner, _LATEST_MS if before_ms is None else before_ms - 1)
    return first, since(owner, -1 if from_ms is None else from_ms - 1)


def position(key: bytes) -> ListingPosition:
    """Return the position that an entry key encodes."""
    at = len(PREFIX) + _LENGTH.size + _LENGTH.unpack_from(key, len(PREFIX))[0]
    created_ms = _LATEST_MS - _NEWEST_FIRST.unpack_from(key, at)[0]
    return ListingPosition(created_ms, key[at + _NEWEST_FIRST.size :].decode())


def owner(key: bytes) -> str:
    """Return whose an entry is, by its key."""
    at = len(PREFIX) + _LENGTH.size
    return key[at : at + _LENGTH.unpack_from(key, len(PREFIX))[0]].decode()


@lru_cache(maxsize=1024)
def _of(owner: bytes) -> bytes:
    """Return the key prefix of one owner; its length distinguishes owners with a common prefix."""
    return PREFIX + _LENGTH.pack(len(owner)) + owner
