"""Base model and validators of all settings sections."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True, allow_inf_nan=False)


def split_commas(value: object) -> object:
    """Parse "a,b" from the environment as a list, so that shells need no JSON."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def http_url(url: str | None) -> str | None:
    """Reject an invalid base URL of a server; the messages do not contain it, as it may hold a password."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it must be an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("the URL must not hold credentials; use the settings for user and password")
    if parts.query or parts.fragment:
        raise ValueError("the URL must not have a query or a fragment")
    return url.rstrip("/")
