"""Cut a file of requests into its lines, as it comes, and remember no more than the line that is not whole yet. Pure.

Blank lines, a byte order mark, CRLF and a missing end of the last line are what editors leave: none of them counts.
"""

from __future__ import annotations

from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class InputLine(NamedTuple):
    """One request of the file."""

    request: int
    """Which request it is, from 0: blank lines are none."""
    number: int
    """Which line of the file it is, from 1: what people look for in their editor."""
    text: bytes | None
    """None when the line is longer than is allowed."""


class LineSplitter:
    """Takes a file piece by piece; of a line that is too long only its place is kept."""

    def __init__(self, *, max_bytes: int) -> None:
        self._longest = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._too_long = False
        self._number = 0
        self._index = 0

    def feed(self, piece: bytes) -> list[InputLine]:
        """Take the next piece and return the requests that end in it."""
        *whole, rest = piece.split(b"\n")
        lines = []
        for end in whole:
            self._buffer(end)
            if (line := self._complete_line()) is not None:
                lines.append(line)
        self._buffer(rest)
        return lines

    def finish(self) -> list[InputLine]:
        """Return the last request when no line end follows it."""
        if not self._size:
            return []
        line = self._complete_line()
        return [] if line is None else [line]

    def _buffer(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._too_long, self._parts = True, []
        elif part:
            self._parts.append(part)

    def _complete_line(self) -> InputLine | None:
        text: bytes | None = None if self._too_long else b"".join(self._parts)
        self._parts, self._size, self._too_long = [], 0, False
        self._number += 1
        if text is not None:
            text = (text.removeprefix(BOM) if self._number == 1 else text).strip()
            if not text:
                return None
        self._index += 1
        return InputLine(self._index - 1, self._number, text)
