"""Media types that several modules compare or send, and the test for JSON. Pure."""

from __future__ import annotations

import re

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
OCTET_STREAM = "application/octet-stream"
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\b", re.IGNORECASE)


def is_json(content_type: str) -> bool:
    """Return whether a content type is JSON, or one of the types that end with `+json`."""
    return _JSON.match(content_type) is not None
