"""The tenants and their quotas for direct Kafka producers, for roles that need no API keys. No key is stored here."""

from __future__ import annotations

import json
import logging
import time
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from core.apikeys import digest_of, tenant_of
from core.errors import ConfigError
from core.settings.loader import api_keys
from core.settings.models import Settings

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
"""Interval of checks for a changed keys file, the same as in the ingress."""
MAX_BYTES = 16_777_216
PER_MINUTE = "tasks_per_minute"
"""Member of a tenant in the keys file."""
MAX_PER_MINUTE = 1_000_000_000


def per_minute_of(described: Mapping[str, Any]) -> int | None:
    """Parse the quota of a tenant, tasks per minute; None if it is not given; raises ValueError."""
    value = described.get(PER_MINUTE)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PER_MINUTE:
        raise ValueError(f"{PER_MINUTE} must be a whole number, 0 for no limit")
    return value


class Tenants:
    """All tenants; a changed keys file is reloaded, and an invalid one is ignored."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = settings.auth.keys_file
        self._clock = clock
        self._looked: float | None = None
        self._stamp: tuple[int, int, int] | None = None
        try:
            keys = [key.get_secret_value() for key in api_keys(settings)]
        except ConfigError:  # only the ingress needs one, and reports it
            keys = []
        self._settled = frozenset(tenant_of(digest_of(key)) for key in keys)
        self._all = self._settled
        self._usual = settings.direct.tasks_per_minute
        self._own: dict[str, int] = {}

    @property
    def limited(self) -> bool:
        """Return whether any tenant can have a limit."""
        return bool(self._usual) or self._path is not None

    def tasks_per_minute(self, tenant: str | None) -> int:
        """Return the quota of a tenant, tasks per minute; 0 for no limit."""
        if self._path is None or tenant is None:
            return self._usual
        self.known()
        return self._own.get(tenant, self._usual)

    def known(self) -> frozenset[str]:
        """Return every tenant."""
        if self._path is not None and (self._looked is None or self._clock() - self._looked >= POLL_INTERVAL_S):
            self._looked = self._clock()
            self._reload_if_changed()
        return self._all

    def _reload_if_changed(self) -> None:
        assert self._path is not None  # noqa: S101 - looked at by `known` alone
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp or found.st_size > MAX_BYTES:
                return
            self._stamp = stamp
            text = self._path.read_text(encoding="utf-8-sig")
            document = json.loads(text) if self._path.suffix == ".json" else tomllib.loads(text)
            tenants = document["tenants"]
            own = {name: per_minute_of(described) for name, described in tenants.items()}
            self._own = {name: limit for name, limit in own.items() if limit is not None}
            self._all = self._settled | frozenset(tenants)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # Without the parser's message: it could contain a part of a key.
            log.error(
                "the keys file %s cannot be read; the previous tenants stay in effect",
                self._path,
                extra={"event": "tenants_unread"},
            )
