"""uvicorn's httptools protocol with a limit on the head of a request: the parser itself would buffer without end."""

from __future__ import annotations

import time

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.api.bella.wire import failure

MAX_HEAD_BYTES = 65_536
"""Request line and headers together; most servers stop at 8 to 64 KB."""
END_OF_HEAD = b"\r\n\r\n"


class LimitedHttp(HttpToolsProtocol):
    """Closes a connection whose request has no end of headers in sight."""

    _in_head = True
    _head_bytes = 0
    _tail = b""

    def data_received(self, data: bytes) -> None:
        """Parse, unless the head has grown too large."""
        if self._in_head:
            if self._head_bytes + len(data) > MAX_HEAD_BYTES and not self._ends_in(data):
                self.transport.write(_refusal())
                self.transport.close()
                return
            self._head_bytes += len(data)
            self._tail = data[-len(END_OF_HEAD) :]
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Stop counting; called by the parser."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count anew; called by the parser."""
        self._in_head, self._head_bytes, self._tail = True, 0, b""
        super().on_message_complete()

    def _ends_in(self, data: bytes) -> bool:
        """Tell whether the head ends within the limit, as a small head before a large body does."""
        end = (self._tail + data).find(END_OF_HEAD)
        return end >= 0 and self._head_bytes - len(self._tail) + end <= MAX_HEAD_BYTES


def _refusal() -> bytes:
    message = f"the request line and the headers together exceed {MAX_HEAD_BYTES} bytes"
    body = failure(431, message, now_ms=time.time_ns() // 1_000_000)
    head = (
        "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
