"""Headers of the Standard Webhooks: id, timestamp, and a signature with every key that the receiver may have. Pure.

Apart from the worker, as the one place that handles the signing keys.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core.settings.webhooks import WebhookSettings, webhook_key

Sign = Callable[[bytes], bytes]


class Signer:
    """Signs deliveries with the keys of their tenant, or with the common keys when it has none of its own."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._common = [_signature(key.get_secret_value()) for key in settings.secret]
        self._own: dict[str, list[tuple[str, Sign]]] = defaultdict(list)
        for entry in settings.tenant_secrets:
            tenant, _, key = entry.get_secret_value().rpartition("=whs")
            self._own[tenant].append(_signature(f"whs{key}"))

    def headers(self, body: bytes, *, delivery_id: str, owner: str | None, at_s: int) -> dict[str, str]:
        """Return the headers of one attempt; without a key there is no signature."""
        out = {"webhook-id": delivery_id, "webhook-timestamp": str(at_s)}
        keys: Sequence[tuple[str, Sign]] = self._own.get(owner or "") or self._common
        if keys:
            content = b"%b.%d.%b" % (delivery_id.encode(), at_s, body)
            out["webhook-signature"] = " ".join(
                f"{scheme},{b64encode(sign(content)).decode()}" for scheme, sign in keys
            )
        return out


def _signature(text: str) -> tuple[str, Sign]:
    scheme, key = webhook_key(text)
    if scheme == "v1a":
        return scheme, Ed25519PrivateKey.from_private_bytes(key).sign
    return scheme, lambda content: hmac.digest(key, content, sha256)
