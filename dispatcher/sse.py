"""Cut a server-sent event stream into the payloads of its data lines, wherever the network cut the bytes."""

from __future__ import annotations

DONE = b"[DONE]"
_MARK = b"\xef\xbb\xbf"


class Cutter:
    """Feed bytes as they come, take whole payloads; `done` once the stream said [DONE], which is no payload."""

    def __init__(self) -> None:
        self.done = False
        self._parts: list[bytes] = []
        self._data: list[bytes] = []
        self._after_cr = False
        self._begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that are complete now."""
        if not data:
            return []
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        if data:
            self._after_cr = data[-1:] == b"\r"
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        # The open line is kept as pieces: a line of megabytes must not be copied anew with every read.
        if b"\n" not in data:
            if data:
                self._parts.append(data)
            return []
        lines = b"".join([*self._parts, data]).split(b"\n")
        rest = lines.pop()
        self._parts = [rest] if rest else []
        return [payload for line in lines if (payload := self._line(line)) is not None]

    def close(self) -> list[bytes]:
        """Return what the end of the stream completes: a last event without its blank line, but never half a line."""
        rest = b"".join(self._parts)
        self._parts = []
        if rest:
            if _value(rest) != DONE:
                return []
            self._line(rest)
        payload = self._line(b"")
        return [] if payload is None else [payload]

    def _line(self, line: bytes) -> bytes | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_MARK)
        if line:
            value = _value(line)
            if value is not None:
                self._data.append(value)
            return None
        if not self._data:
            return None
        payload = b"\n".join(self._data)
        self._data.clear()
        if payload.strip() == DONE:
            self.done = True
            return None
        return payload


def _value(line: bytes) -> bytes | None:
    """Return what follows `data:`, None for comments and other fields."""
    if not line.startswith(b"data"):
        return None
    if line == b"data":
        return b""
    if line[4:5] != b":":
        return None
    return line[6:] if line[5:6] == b" " else line[5:]
