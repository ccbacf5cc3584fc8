"""The keys file: read at start, and again whenever it changes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from core.errors import ConfigError
from ingress.auth.key_entry import NO_LIMITS, Key, KeyQuota, from_document
from ingress.auth.keys import Keys

log = logging.getLogger(__name__)

POLL_S = 1.0
"""A revoked key is refused this much later at the latest; looking costs one system call."""
MAX_BYTES = 16_777_216
_PLACE = re.compile(r"\((at [^()]*)\)$")
Stamp = tuple[int, int, int]


class KeysFile:
    """Keeps the keys in step with a file, TOML or JSON; one that cannot be used changes nothing."""

    def __init__(self, path: Path, *, limits: KeyQuota = NO_LIMITS) -> None:
        self._path = path
        self._limits = limits
        self._stamp: Stamp | None = None

    def read(self) -> list[Key]:
        """Read the file; raises ConfigError, whose sentence repeats no key."""
        # Read before the text: a write in between is detected by the next poll.
        self._stamp = self._look()
        return read_keys(self._path, limits=self._limits)

    @asynccontextmanager
    async def followed_by(self, keys: Keys) -> AsyncIterator[None]:
        """Take over every change as long as the block lasts."""
        following = asyncio.create_task(self._follow(keys), name="keys-file")
        try:
            yield
        finally:
            following.cancel()

    async def _follow(self, keys: Keys) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self.renew(keys)

    async def renew(self, keys: Keys) -> None:
        """Look once."""
        if await asyncio.to_thread(self._look) == self._stamp:
            return
        try:
            found = await asyncio.to_thread(self.read)
            keys.take_file(found)
        except ConfigError as error:
            log.error("%s; continuing with the keys loaded before", error, extra={"event": "keys_file_invalid"})
            return
        log.info("%s: loaded %d keys", self._path, len(found), extra={"event": "keys_file_loaded", "keys": len(found)})

    def _look(self) -> Stamp | None:
        """Return what changes with the file; a file that is replaced within one clock tick has another number."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read_keys(path: Path, *, limits: KeyQuota = NO_LIMITS) -> list[Key]:
    """Read a keys file, JSON by its name and else TOML; raises ConfigError, whose sentence repeats no key."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"the keys file {path} is larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"the keys file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the keys file {path} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"the keys file {path} is not valid JSON at {place}") from None
    except (ValueError, RecursionError) as error:
        # The parser's own words could hold a piece of a key; the place that they end with does not.
        found = _PLACE.search(str(error))
        raise ConfigError(f"the keys file {path} is not valid TOML{f' {found[1]}' if found else ''}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"the keys file {path} must hold a table")
    try:
        return from_document(document, limits=limits)
    except ConfigError as error:
        raise ConfigError(f"the keys file {path} is wrong: {error.message}") from None
