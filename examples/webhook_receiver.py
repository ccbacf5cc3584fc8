"""Receive webhooks, verify their signatures, and process each once. Needs nothing but Python.

    export WEBHOOK_SECRET="whsec_$(head -c 32 /dev/urandom | base64 -w 0)"
    python examples/webhook_receiver.py --port 8081

Headrace signs with the same secret: HEADRACE_WEBHOOKS_SECRET. The format is that of https://www.standardwebhooks.com.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300
"""Older deliveries are refused, so that a recorded one cannot be replayed later."""
MAX_BODY_BYTES = 4 * 1024 * 1024
seen: set[str] = set()
"""Ids of processed deliveries. Store them in a database, for some days: deliveries are at least once."""


def problem(secret: bytes, headers: Mapping[str, str], body: bytes, *, now_s: float) -> str | None:
    """Return why a delivery is not authentic, or None if it is."""
    delivery_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return "the timestamp is missing or too old"
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    # Several signatures, one per secret, while a secret is rotated.
    given = headers.get("webhook-signature", "").split()
    if not any(hmac.compare_digest(one.encode(), expected.encode()) for one in given):
        return "no signature matches"
    return None


def handler(secret: bytes) -> type[BaseHTTPRequestHandler]:
    """Return the request handler for one secret."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            if length > MAX_BODY_BYTES:
                self.send_error(413)
                return
            body = self.rfile.read(length)
            if found := problem(secret, self.headers, body, now_s=time.time()):
                self.send_error(401, found)
                return
            delivery_id = self.headers["webhook-id"]
            if delivery_id not in seen:
                print(json.dumps(json.loads(body)), flush=True)  # process it here
                seen.add(delivery_id)
            self.send_response(204)  # any 2xx; everything but 410 is tried again
            self.end_headers()

    return Receiver


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description="Receive webhooks and verify their signatures.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8081, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    secret = os.environ.get("WEBHOOK_SECRET", "")
    if not secret.startswith("whsec_"):
        parser.error("set WEBHOOK_SECRET to the value of webhooks.secret (whsec_…)")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    ThreadingHTTPServer((options.host, options.port), handler(key)).serve_forever()


if __name__ == "__main__":
    main()
