"""Take the head of an answer for what it says, whatever follows it.

A body behind a 204 or beyond its content-length is a common mistake of receivers. When all arrives at once the parser
gives up the whole answer, status included: what was accepted would be sent for three days, then buried.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

HEAD_END = b"\r\n\r\n"


class LenientResponseHandler(ResponseHandler):
    """Hands the parser the head alone, then the rest: an error there closes the connection, and the status stands."""

    def data_received(self, data: bytes) -> None:
        """Take in what has arrived."""
        head, end, rest = data.partition(HEAD_END)
        if rest:
            super().data_received(head + end)
            data = rest
        super().data_received(data)


class LenientConnector(aiohttp.TCPConnector):
    """Makes connections that read so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = LenientResponseHandler
        self._factory = partial(kind, loop=self._loop)
