"""Token usage of a response: parsed from JSON, or found in a stream too large for memory."""

from __future__ import annotations

import json
import re
from typing import Any

from core import lenient_json
from schemas.common import Usage

MAX_OBJECT_BYTES = 8_192
"""Maximum size of a usage object; longer matches are ignored."""
_BEGIN = re.compile(rb'"usage"\s{0,8}:\s{0,8}(?=\{)')
_BEGIN_BYTES = 32
_DECODER = json.JSONDecoder()


def usage_of(body: bytes | None) -> Usage | None:
    """Return the token usage of a JSON body, if any."""
    if body is None or b'"usage"' not in body:
        return None
    document = lenient_json.document(body)
    return _counted(document.get("usage")) if isinstance(document, dict) else None


class UsageFinder:
    """Finds the last usage object in JSON text that arrives in chunks."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._carried = b""

    def feed(self, piece: bytes) -> None:
        """Scan the next chunk; an object may continue in later chunks."""
        text = self._carried + piece
        self._carried = text[-_BEGIN_BYTES:]
        for found in _BEGIN.finditer(text):
            raw = text[found.end() : found.end() + MAX_OBJECT_BYTES]
            try:
                value, _ = _DECODER.raw_decode(raw.decode(errors="replace"))
            except json.JSONDecodeError:
                if len(raw) < MAX_OBJECT_BYTES:
                    self._carried = text[found.start() :]
            else:
                self.usage = _counted(value) or self.usage


def _counted(counts: Any) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    prompt = _count(counts, "prompt_tokens", "input_tokens")
    completion = _count(counts, "completion_tokens", "output_tokens")
    total = _count(counts, "total_tokens") or prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _count(counts: dict[str, Any], *names: str) -> int:
    for name in names:
        value = counts.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
            return value
    return 0
