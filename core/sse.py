"""Parse a server-sent event stream into the payloads of its data lines, from chunks of any size. Pure."""

from __future__ import annotations

from typing import Self

DONE = b"[DONE]"
MAX_EVENT = 128
"""Maximum length of an event name; longer ones are ignored."""
_MARK = b"\xef\xbb\xbf"


class Payload(bytes):
    """The payload of a named event; that of an unnamed event is plain bytes."""

    event: str

    @classmethod
    def named(cls, data: bytes, event: str) -> Self:
        """Attach an event name to a payload."""
        payload = cls(data)
        payload.event = event
        return payload


def event_of(payload: bytes) -> str:
    """Return the event name of a payload; empty if it has none."""
    return payload.event if isinstance(payload, Payload) else ""


def named(payloads: list[bytes], events: list[str]) -> list[bytes]:
    """Attach stored event names to payloads; None means that no payload has a name."""
    if not events:
        return payloads
    return [Payload.named(data, event) if event else data for data, event in zip(payloads, events, strict=True)]


class SseParser:
    """Incremental parser: feed bytes, get complete payloads; `done` is set after [DONE], which is not a payload.

    Events without data are skipped, as browsers do: servers send them as keep-alives.
    """

    def __init__(self) -> None:
        self.done = False
        self._parts: list[bytes] = []
        self._data: list[bytes] = []
        self._event = ""
        self._after_cr = False
        self._begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads completed by these bytes."""
        if not data:
            return []
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
        if data:
            self._after_cr = data[-1:] == b"\r"
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        # The incomplete line is stored in parts: a line of megabytes must not be copied with every read.
        if b"\n" not in data:
            if data:
                self._parts.append(data)
            return []
        lines = b"".join([*self._parts, data]).split(b"\n")
        rest = lines.pop()
        self._parts = [rest] if rest else []
        return [payload for line in lines if (payload := self._line(line)) is not None]

    def close(self) -> list[bytes]:
        """Return what the end of the stream completes: a last event without blank line, but no partial line."""
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
            elif line.startswith(b"event:"):
                self._event = line[6:].decode(errors="replace").strip()
            return None
        event, self._event = self._event, ""
        if not self._data:
            return None
        payload = b"\n".join(self._data)
        self._data.clear()
        meant = payload.strip()
        if meant == DONE:
            self.done = True
        if not meant or meant == DONE:
            return None
        return Payload.named(payload, event) if event and len(event) <= MAX_EVENT else payload


def payloads(text: bytes) -> list[bytes]:
    """Return the payloads of a whole stream, without [DONE]."""
    cutter = SseParser()
    return cutter.feed(text) + cutter.close()


def _value(line: bytes) -> bytes | None:
    """Return the value of a `data:` line; None for comments and other fields."""
    if not line.startswith(b"data"):
        return None
    if line == b"data":
        return b""
    if line[4:5] != b":":
        return None
    return line[6:] if line[5:6] == b" " else line[5:]
