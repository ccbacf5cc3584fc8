"""HMAC signature of our own task records, if a secret is set: proof that an ingress has validated the task.

Without a secret our records are recognised by their form only, which any producer with write access to the tasks topics
can imitate. The signature covers the value, with id and tenant; it is invalid on any other record.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from core.settings.models import Settings
from schemas.headers import find
from schemas.task_decoder import has_internal_headers
from schemas.topics import LEVELS, TASKS

SIGNATURE_HEADER = "x-stamp"


class RecordSigner:
    """Signs records and verifies signatures."""

    def __init__(self, settings: Settings) -> None:
        self._secrets = [secret.get_secret_value().encode() for secret in settings.direct.secrets]
        self._topics = (
            frozenset(settings.topic(f"{TASKS}.{level}") for level in LEVELS) if self._secrets else frozenset()
        )

    def signs(self, topic: str) -> bool:
        """Return whether records of a topic are signed."""
        return topic in self._topics

    def headers(self, value: bytes | None, headers: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Return the headers of a record with its signature, unless it has one."""
        if value is None or not has_internal_headers(headers) or find(headers, SIGNATURE_HEADER) is not None:
            return headers
        return [*headers, (SIGNATURE_HEADER, hmac.digest(self._secrets[0], value, "sha256").hex().encode())]

    def verify(self, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> bool:
        """Return whether a record in our form is authentic; without a secret always true."""
        if not self._secrets:
            return True
        given = find(headers, SIGNATURE_HEADER) or b""
        made = (hmac.digest(secret, value, "sha256").hex().encode() for secret in self._secrets)
        return any(hmac.compare_digest(given, one) for one in made)
