"""Suggests the known name that an unknown name probably means. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

SHOWN = 80
"""Maximum number of characters of an unknown name that are compared and shown."""


def hint(name: str, known: Collection[str]) -> str:
    """Return "; did you mean NAME?", or the list of known names if none is similar.

    Case and word separators are ignored: `callbackUrl` matches `callback_url`.
    """
    by_form = {_form(one): one for one in known}
    near = get_close_matches(_form(name[:SHOWN]), by_form, n=1)
    return f"; did you mean {by_form[near[0]]}?" if near else f"; there are {', '.join(dict.fromkeys(known))}"


def _form(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
