"""Which tenants there are, for the roles that hold no key: the names alone, of the settings and of the keys file."""

from __future__ import annotations

import json
import logging
import time
import tomllib
from collections.abc import Callable

from core.apikeys import digest_of, tenant_of
from core.config import api_keys
from core.errors import ConfigError
from core.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""As often as the ingress looks whether its keys file has changed."""
MAX_BYTES = 16_777_216


class Tenants:
    """The names of all tenants; a keys file is read anew when it has changed, a broken one changes nothing."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = settings.auth.keys_file
        self._clock = clock
        self._looked: float | None = None
        self._stamp: tuple[int, int, int] | None = None
        try:
            keys = [key.get_secret_value() for key in api_keys(settings)]
        except ConfigError:  # the ingress alone needs one, and says so
            keys = []
        self._settled = frozenset(tenant_of(digest_of(key)) for key in keys)
        self._all = self._settled

    def known(self) -> frozenset[str]:
        """Return every tenant."""
        if self._path is not None and (self._looked is None or self._clock() - self._looked >= LOOK_S):
            self._looked = self._clock()
            self._look()
        return self._all

    def _look(self) -> None:
        assert self._path is not None  # noqa: S101 - looked at by `known` alone
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp or found.st_size > MAX_BYTES:
                return
            self._stamp = stamp
            text = self._path.read_text(encoding="utf-8")
            document = json.loads(text) if self._path.suffix == ".json" else tomllib.loads(text)
            self._all = self._settled | frozenset(document["tenants"].keys())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # No word of the parser's: it could hold a piece of a key.
            log.error(
                "the keys file %s cannot be read; the tenants read before stay",
                self._path,
                extra={"event": "tenants_unread"},
            )
