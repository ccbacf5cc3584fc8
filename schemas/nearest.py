"""The name that was probably meant by one that is not known. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

SHOWN = 80
"""Characters of a stranger's name that are compared and shown."""


def hint(name: str, known: Collection[str]) -> str:
    """Return "; did you mean NAME?", or the list of what there is when nothing is near.

    Case and the signs between words count for nothing: `callbackUrl` means `callback_url`.
    """
    by_form = {_form(one): one for one in known}
    near = get_close_matches(_form(name[:SHOWN]), by_form, n=1)
    return f"; did you mean {by_form[near[0]]}?" if near else f"; there are {', '.join(dict.fromkeys(known))}"


def _form(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
