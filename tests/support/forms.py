"""Multipart forms byte by byte, and requests that come in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from starlette.requests import Request

EDGE = "multipart/form-data; boundary=edge"
HEAD = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
PURPOSE = b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
END = b"--edge--\r\n"


def form_in_pieces(body: bytes, cuts: Iterable[int]) -> Request:
    """Build the request of a form whose body comes cut at these positions, as far as it reaches."""
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    messages = [{"type": "http.request", "body": body[a:b], "more_body": True} for a, b in pairwise(edges)]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def next_message() -> Any:
        return messages.pop(0)

    return Request({"type": "http", "headers": [(b"content-type", EDGE.encode())]}, next_message)
