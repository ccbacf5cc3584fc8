"""What an API key is, and how the settings and the keys file write one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

from core.apikeys import DIGEST_PREFIX, OWNER_DIGITS, digest_of, tenant_of
from core.errors import ConfigError
from core.tenants import PER_MINUTE, per_minute_of

Scope = Literal["submit", "read", "admin"]
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
USUAL_SCOPES: frozenset[Scope] = frozenset({"submit", "read"})
MEMBERS = ("id", "key", "sha256", "scopes", "requests_per_minute", "concurrency", "enabled", "expires")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_WORD = re.compile(r"[a-z_]{1,24}")


class KeyQuota(NamedTuple):
    """How much one key may ask for; 0 is no limit."""

    requests_per_minute: int = 0
    concurrency: int = 0
    """Blocking and streaming requests that are held at once."""


NO_LIMITS = KeyQuota()


class Key(NamedTuple):
    """One accepted key; the key itself is nowhere, only its digest."""

    digest: bytes
    owner: str
    """The tenant."""
    name: str
    """What logs call it: TENANT/ID."""
    scopes: frozenset[Scope] = SCOPES
    limits: KeyQuota = NO_LIMITS
    enabled: bool = True
    expires_s: float | None = None
    """Epoch seconds."""


def from_setting(text: str, *, number: int, scopes: frozenset[Scope], limits: KeyQuota = NO_LIMITS) -> Key:
    """Read an entry of auth.api_keys, a tenant of its own; raises ConfigError."""
    try:
        digest = digest_of(text)
    except ValueError as error:
        raise ConfigError(f"entry {number} of auth.api_keys {error}") from None
    owner = tenant_of(digest)
    return Key(digest, owner, owner, scopes, limits)


def from_document(document: Mapping[str, Any], *, limits: KeyQuota = NO_LIMITS) -> list[Key]:
    """Read a keys file; raises ConfigError, whose sentence names the place and repeats no key.

    Args:
        limits: of keys that name none.
    """
    unknown = set(document) - {"tenants"}
    if unknown:
        raise ConfigError(f"{_shown(unknown)} is not known; the file holds [tenants.NAME] tables")
    keys: list[Key] = []
    for tenant, described in _table(document.get("tenants", {}), "tenants").items():
        keys += _of_tenant(tenant, _table(described, f"tenants.{tenant}"), limits)
    if not keys:
        # A file that is being written has this form, too.
        raise ConfigError("it lists no key")
    return keys


def _of_tenant(tenant: str, described: Mapping[str, Any], limits: KeyQuota) -> Iterator[Key]:
    if not _NAME.fullmatch(tenant):
        raise ConfigError("the name of a tenant must be 1 to 64 of a-z A-Z 0-9 _ . -")
    unknown = set(described) - {"keys", PER_MINUTE}
    if unknown:
        raise ConfigError(
            f"tenant {tenant}: {_shown(unknown)} is not known; there are [[tenants.{tenant}.keys]] and {PER_MINUTE}"
        )
    try:
        per_minute_of(described)  # the schedulers go by it
    except ValueError as error:
        raise ConfigError(f"tenant {tenant}: {error}") from None
    entries = described.get("keys", [])
    if not isinstance(entries, list):
        raise ConfigError(f"tenants.{tenant}.keys must be a list of tables")
    for number, entry in enumerate(entries, 1):
        where = f"key {number} of tenant {tenant}"
        yield _of_entry(_table(entry, where), tenant, where, limits)


def _of_entry(entry: Mapping[str, Any], tenant: str, where: str, limits: KeyQuota) -> Key:
    unknown = set(entry) - set(MEMBERS)
    if unknown:
        raise ConfigError(f"{where}: {_shown(unknown)} is not known; there are {', '.join(MEMBERS)}")
    digest = _digest(entry, where)
    name = entry.get("id", digest.hex()[:OWNER_DIGITS])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: id must be 1 to 64 of a-z A-Z 0-9 _ . -")
    enabled = entry.get("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(f"{where}: enabled must be true or false")
    own = KeyQuota(
        _count(entry, "requests_per_minute", where, limits.requests_per_minute),
        _count(entry, "concurrency", where, limits.concurrency),
    )
    return Key(digest, tenant, f"{tenant}/{name}", _scopes(entry, where), own, enabled, _expires_s(entry, where))


def _digest(entry: Mapping[str, Any], where: str) -> bytes:
    if ("key" in entry) == ("sha256" in entry):
        raise ConfigError(f"{where} must have either sha256 or key")
    member = "key" if "key" in entry else "sha256"
    text = entry[member]
    if not isinstance(text, str):
        raise ConfigError(f"{where}: {member} must be text")
    if member == "sha256" and not text.startswith(DIGEST_PREFIX):
        text = DIGEST_PREFIX + text
    try:
        return digest_of(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {member} {error}") from None


def _scopes(entry: Mapping[str, Any], where: str) -> frozenset[Scope]:
    given = entry.get("scopes", sorted(USUAL_SCOPES))
    if not isinstance(given, list) or not given or not all(isinstance(scope, str) for scope in given):
        raise ConfigError(f"{where}: scopes must be a list of submit, read, admin")
    scopes: frozenset[Scope] = frozenset(scope for scope in SCOPES if scope in given)
    if len(scopes) != len(set(given)):
        raise ConfigError(f"{where}: {_shown(set(given) - SCOPES)} is no scope; there are submit, read and admin")
    return scopes


def _count(entry: Mapping[str, Any], member: str, where: str, default: int) -> int:
    value = entry.get(member, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000_000:
        raise ConfigError(f"{where}: {member} must be a whole number, 0 for no limit")
    return value


def _expires_s(entry: Mapping[str, Any], where: str) -> float | None:
    value = entry.get("expires")
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError(f"{where}: expires must be a time with its zone, such as 2027-01-31T00:00:00Z")
    return value.timestamp()


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table")
    return value


def _shown(names: set[str]) -> str:
    """Name an unknown member, unless it could be a key in the wrong place."""
    return min((name for name in names if _WORD.fullmatch(name)), default="a name")
