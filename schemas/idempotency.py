"""Under which id a task's Idempotency-Key is remembered. Pure."""

from __future__ import annotations

from hashlib import blake2b

import orjson

PREFIX = "IDEM-"


def key_id(queue: str, owner: str | None, key: str) -> str:
    """Return the id of the row that remembers a key of an owner in a queue."""
    scope = orjson.dumps([queue, owner, key])
    return PREFIX + blake2b(scope, digest_size=16).hexdigest()
