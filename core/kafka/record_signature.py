"""The stamp on task records of ours, where the settings have a secret for it: proof that a door has judged the task.

Without a secret a record of ours is known by its form alone, which whoever may write to the tasks topics can imitate.
The stamp covers the value, id and owner included; its copy on another record proves nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from core.settings.models import Settings
from schemas.headers import find
from schemas.task_decoder import is_ours
from schemas.topics import LEVELS, TASKS

SIGNATURE_HEADER = "x-stamp"


class RecordSigner:
    """Stamp records, and look at stamps."""

    def __init__(self, settings: Settings) -> None:
        self._secrets = [secret.get_secret_value().encode() for secret in settings.direct.secrets]
        self._topics = (
            frozenset(settings.topic(f"{TASKS}.{level}") for level in LEVELS) if self._secrets else frozenset()
        )

    def signs(self, topic: str) -> bool:
        """Tell whether records of a topic are stamped."""
        return topic in self._topics

    def headers(self, value: bytes | None, headers: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Return the headers of a record with its stamp, when it is one of ours and has none yet."""
        if value is None or not is_ours(headers) or find(headers, SIGNATURE_HEADER) is not None:
            return headers
        return [*headers, (SIGNATURE_HEADER, hmac.digest(self._secrets[0], value, "sha256").hex().encode())]

    def verify(self, value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> bool:
        """Tell whether a record in our form is ours; without a secret its form is enough."""
        if not self._secrets:
            return True
        given = find(headers, SIGNATURE_HEADER) or b""
        made = (hmac.digest(secret, value, "sha256").hex().encode() for secret in self._secrets)
        return any(hmac.compare_digest(given, one) for one in made)
