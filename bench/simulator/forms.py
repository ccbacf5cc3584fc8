"""Multipart forms, read just as far as the simulator needs them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from bench.simulator.behaviour import UnknownBehaviourError

BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
NAME = re.compile(rb'name="([^"]*)"')


def read_form(content_type: str, data: bytes) -> Mapping[str, Any]:
    """Return the fields as text; of a file its digest and size, for no answer depends on more."""
    found = BOUNDARY.search(content_type)
    if found is None:
        raise UnknownBehaviourError("The form has no boundary.", param="body")
    fields: dict[str, Any] = {}
    for part in data.split(b"--" + found[1].encode())[1:-1]:
        header, _, content = part.partition(b"\r\n\r\n")
        named = NAME.search(header)
        if named is None:
            raise UnknownBehaviourError("A part of the form has no name.", param="body")
        content = content.removesuffix(b"\r\n")
        name = named[1].decode(errors="replace").removesuffix("[]")
        if b"filename=" in header:
            fields[name] = f"{hashlib.sha256(content).hexdigest()}/{len(content)}"
        else:
            fields[name] = content.decode(errors="replace")
    return fields
