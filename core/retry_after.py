"""Parse the Retry-After header of model servers and of webhook endpoints. Pure."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 86_400
"""A server may ask for a delay of at most a day; its clock may be wrong."""


def retry_after_s(value: str | None, *, now_ms: int) -> float | None:
    """Return the seconds that a header value asks to wait, from 0 to a day; None when it is missing or invalid.

    The value is a number of seconds, which may have a fraction, or an HTTP date.
    """
    if value is None or not value.isascii():
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            seconds = moment.timestamp() - now_ms / 1000
        except (ValueError, TypeError, OverflowError, IndexError):  # a year or a time zone that no calendar has
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None
