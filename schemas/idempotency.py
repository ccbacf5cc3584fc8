"""Ids of the state records that reserve idempotency keys. Pure."""

from __future__ import annotations

from hashlib import blake2b

import orjson

PREFIX = "IDEM-"


def key_id(queue: str, owner: str | None, key: str) -> str:
    """Return the id of the reservation of a tenant's key in a queue."""
    scope = orjson.dumps([queue, owner, key])
    return PREFIX + blake2b(scope, digest_size=16).hexdigest()
