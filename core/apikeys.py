"""API keys in settings and files: allowed characters and the stored SHA-256 digest."""

from __future__ import annotations

import re
from hashlib import sha256

DIGEST_PREFIX = "sha256:"
OWNER_DIGITS = 12


def printable(text: str) -> bool:
    """Return whether a text can be sent as one token of an HTTP header."""
    return bool(text) and all(33 <= ord(character) <= 126 for character in text)


def digest_of(text: str) -> bytes:
    """Return the digest of a key given in plain text or as sha256:HEX; raises ValueError, without the key in it."""
    if not text.startswith(DIGEST_PREFIX):
        if not printable(text):
            raise ValueError("must be printable ASCII without blanks, and not empty")
        return sha256(text.encode()).digest()
    hexadecimal = text.removeprefix(DIGEST_PREFIX)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", hexadecimal):
        raise ValueError(f"begins with {DIGEST_PREFIX} but is not followed by 64 hex digits")
    return bytes.fromhex(hexadecimal)


def tenant_of(digest: bytes) -> str:
    """Return the tenant of a key from the settings; each key is a tenant of its own."""
    return f"key-{digest.hex()[:OWNER_DIGITS]}"
