"""Bearer keys: who asks, and that nobody else may."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from pydantic import SecretStr
from starlette.requests import Request

from core.errors import ConfigError, Unauthorized

DIGEST_PREFIX = "sha256:"
TENANT_DIGITS = 12


class Caller(NamedTuple):
    """Who asks."""

    owner: str
    """The tenant: what its keys put belongs to it, and nobody else sees it."""


class Keys:
    """The accepted keys, kept as digests; each is a tenant of its own."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        """Take keys as they are or as sha256:HEX; raises ConfigError."""
        digests = [_digest(key.get_secret_value()) for key in keys]
        self._tenants = [(digest, f"key-{digest.hex()[:TENANT_DIGITS]}") for digest in digests]

    def caller(self, request: Request) -> Caller:
        """Return who sent a request; raises Unauthorized."""
        return Caller(self.tenant(request.headers.get("authorization")))

    def tenant(self, authorization: str | None) -> str:
        """Return the tenant of an Authorization header; raises Unauthorized."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("an API key is required: send the header Authorization: Bearer KEY")
        given = sha256(token.strip().encode("latin-1")).digest()
        found = None
        # Every key is compared, so that the time taken tells nothing about which one was near.
        for digest, tenant in self._tenants:
            if hmac.compare_digest(digest, given):
                found = tenant
        if found is None:
            raise Unauthorized("the API key is not known")
        return found


def _digest(key: str) -> bytes:
    if not key.startswith(DIGEST_PREFIX):
        return sha256(key.encode()).digest()
    try:
        digest = bytes.fromhex(key.removeprefix(DIGEST_PREFIX))
    except ValueError:
        digest = b""
    if len(digest) != sha256().digest_size:
        raise ConfigError(f"an entry of auth.api_keys begins with {DIGEST_PREFIX} but is not followed by 64 hex digits")
    return digest
