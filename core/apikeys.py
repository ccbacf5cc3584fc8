"""How an API key is written in settings and files, and the digest that is kept of it."""

from __future__ import annotations

import re
from hashlib import sha256

DIGEST_PREFIX = "sha256:"
OWNER_DIGITS = 12


def printable(text: str) -> bool:
    """Tell whether a text can travel in a header as one word."""
    return bool(text) and all(33 <= ord(character) <= 126 for character in text)


def digest_of(text: str) -> bytes:
    """Return the digest of a key, written as it is or as sha256:HEX; raises ValueError, which does not repeat it."""
    if not text.startswith(DIGEST_PREFIX):
        if not printable(text):
            raise ValueError("must be printable ASCII without blanks, and not empty")
        return sha256(text.encode()).digest()
    hexadecimal = text.removeprefix(DIGEST_PREFIX)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", hexadecimal):
        raise ValueError(f"begins with {DIGEST_PREFIX} but is not followed by 64 hex digits")
    return bytes.fromhex(hexadecimal)


def tenant_of(digest: bytes) -> str:
    """Name the tenant that a key of the settings is, each one of its own."""
    return f"key-{digest.hex()[:OWNER_DIGITS]}"
