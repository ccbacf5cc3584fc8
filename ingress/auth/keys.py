"""Authentication and authorization by bearer keys."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b, sha256
from typing import NamedTuple

from pydantic import SecretStr
from starlette.requests import Request

from core.errors import ConfigError, Forbidden, Unauthorized
from ingress.auth.key_entry import NO_LIMITS, SCOPES, USUAL_SCOPES, Key, KeyQuota, Scope, from_setting
from ingress.http.options import check_names


class Caller(NamedTuple):
    """Who asks."""

    owner: str
    """The tenant: tasks submitted with its keys belong to it, and only it can see them."""
    scopes: frozenset[Scope] = SCOPES
    key: str = ""
    """The key's name for logs and limits; never the key."""
    limits: KeyQuota = NO_LIMITS


class Keys:
    """The accepted keys: those of the settings, which stay, and those of the keys file, which may be exchanged."""

    def __init__(
        self,
        keys: Sequence[SecretStr],
        *,
        limits: KeyQuota = NO_LIMITS,
        from_file: Iterable[Key] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the keys of the settings, as they are or as sha256:HEX; raises ConfigError."""
        self._clock = clock
        found = list(from_file)
        # A key that is alone may do everything. Where there are several tenants none is master of the others, unless
        # the keys file says so.
        scopes = SCOPES if len(keys) == 1 and not found else USUAL_SCOPES
        self._settled = [
            from_setting(key.get_secret_value(), number=number, scopes=scopes, limits=limits)
            for number, key in enumerate(keys, 1)
        ]
        # Keys are found by a digest that nobody outside can foresee: the time a search takes tells nothing about which
        # key was near, and a thousand keys are searched as fast as one.
        self._salt = secrets.token_bytes(32)
        self._found: dict[bytes, Key] = {}
        self.take_file(found)

    def take_file(self, keys: Iterable[Key]) -> None:
        """Exchange the keys of the keys file; raises ConfigError, and then nothing has changed."""
        found: dict[bytes, Key] = {}
        names: set[str] = set()
        for key in (*self._settled, *keys):
            if self._place(key.digest) in found:
                raise ConfigError(f"the key {key.name} is listed twice, in the keys file or in auth.api_keys")
            if key.name in names:
                raise ConfigError(f"two keys are called {key.name}; give one another id")
            names.add(key.name)
            found[self._place(key.digest)] = key
        self._found = found

    def entries(self) -> list[Key]:
        """List the accepted keys, those of the settings first."""
        return list(self._found.values())

    def caller(self, request: Request, scope: Scope) -> Caller:
        """Return who sent a request; raises Unauthorized, and Forbidden when its key lacks a scope.

        Every API calls this, so an unknown X-Headrace header is refused here, with InvalidRequest.
        """
        scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("an API key is required: send the header Authorization: Bearer KEY")
        caller = self.holder(token.strip(), scope)
        check_names(request.headers)
        return caller

    def holder(self, token: str, scope: Scope) -> Caller:
        """Return who holds a key; raises Unauthorized, and Forbidden when the key lacks a scope."""
        given = sha256(token.encode("latin-1", "replace")).digest()
        key = self._found.get(self._place(given))
        if key is None or not hmac.compare_digest(key.digest, given):
            raise Unauthorized("the API key is not known")
        if not key.enabled:
            raise Unauthorized("the API key is disabled")
        if key.expires_s is not None and self._clock() >= key.expires_s:
            raise Unauthorized("the API key has expired")
        if scope not in key.scopes:
            raise Forbidden(f"this needs a key with the scope {scope}; yours has {', '.join(sorted(key.scopes))}")
        return Caller(key.owner, key.scopes, key.name, key.limits)

    def _place(self, digest: bytes) -> bytes:
        return blake2b(digest, key=self._salt, digest_size=16).digest()
