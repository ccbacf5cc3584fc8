"""Parse multipart forms while they arrive, and rewrite them: parts are passed on, some read, some removed. Pure.

The output does not depend on how the input is split. The form gets a new boundary, so that a retried request with the
same Idempotency-Key has the same bytes: clients generate a boundary each time.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.errors import InvalidRequest, TooLarge

MAX_PARTS = 256
MAX_FIELD_BYTES = 4_096
"""Limit of a field that is read; others are only passed on."""
MAX_BOUNDARY = 200
_EXTENDED = re.compile(rb";\s*filename\*\s*=\s*\"?[^';]*'[^';]*'([^;\"]*)", re.IGNORECASE)

# The parser logs a warning for every invalid form; the client gets the error, and its bytes do not belong in the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class FormFile(NamedTuple):
    """The headers of a file part."""

    field: str
    name: str
    media_type: str


class FormLimits(NamedTuple):
    """Which parts of a form are read, removed and required, and their limits."""

    read: frozenset[str]
    """Fields whose text is read; each may be given once."""
    dropped: frozenset[str]
    """Fields that are removed."""
    files: frozenset[str]
    """Fields that must be files."""
    max_file_bytes: int
    """Limit of all files together."""
    check: Callable[[FormFile], None]
    """Raises InvalidRequest for an unacceptable file."""
    bare: bool = False
    """Pass on only the bytes of the files, without the form; empty files are allowed."""
    limit: str = "ingress.max_upload_bytes"
    """The setting of the file limit."""


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary of a form's media type, None for any other type; raises InvalidRequest without one."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary", b"")
    if not boundary or len(boundary) > MAX_BOUNDARY:
        raise InvalidRequest("the content-type of the form names no boundary", field="content-type")
    return boundary


class FormParser:
    """Incremental parser of a form: subclasses handle the headers, the bytes and the end of each part."""

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self.part_ended,
                "on_end": self._on_end,
            },
        )
        self._ended = False
        self._parts = 0
        self._header_name = self._header_value = b""
        self.headers: list[tuple[bytes, bytes]] = []
        """Headers of the current part."""
        self.field = ""
        """Name of the current part; empty if its headers give none."""
        self.part_bytes = 0
        """Bytes of the current part so far."""

    def write(self, data: bytes) -> None:
        """Parse the next bytes; raises InvalidRequest, and what the handlers raise."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest(f"the body is no valid multipart form: {error}", field="body") from None

    def check_end(self) -> None:
        """Raise InvalidRequest when the form is incomplete."""
        if not self._ended:
            raise InvalidRequest("the multipart form breaks off before its closing boundary", field="body")

    def part_started(self, file: FormFile | None) -> None:
        """Handle a new part, which is a file or a plain field."""
        raise NotImplementedError

    def part_data(self, data: bytes) -> None:
        """Handle bytes of the current part."""
        raise NotImplementedError

    def part_ended(self) -> None:
        """Handle the end of the current part."""

    def header(self, wanted: bytes) -> bytes:
        """Return a header of the part; raises InvalidRequest for two, which servers would interpret differently."""
        found = [value for name, value in self.headers if name.lower() == wanted]
        if len(found) > 1:
            raise InvalidRequest(f"a part of the form has two headers {wanted.decode()}", field="body")
        return found[0] if found else b""

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"the form has more than {MAX_PARTS} parts", field="body")
        self.headers, self.part_bytes = [], 0

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self.headers.append((self._header_name, self._header_value))
        self._header_name = self._header_value = b""

    def _on_headers(self) -> None:
        disposition = self.header(b"content-disposition")
        kind, options = parse_options_header(disposition)
        self.field = options.get(b"name", b"").decode(errors="replace") if kind == b"form-data" else ""
        name = file_name_of(disposition, options)
        content_type = self.header(b"content-type").decode("latin-1")
        self.part_started(None if name is None else FormFile(self.field, name, content_type))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.part_bytes += end - start
        self.part_data(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


class FormRewriter(FormParser):
    """Feed bytes as they arrive; `feed` returns the rewritten bytes, `close` the last of them."""

    def __init__(self, boundary: bytes, rules: FormLimits, *, new_boundary: str) -> None:
        super().__init__(boundary)
        self._rules = rules
        self._edge = b"--" + new_boundary.encode()
        self._out: list[bytes] = []
        self._file_bytes = 0
        self._is_file = False
        self._text: list[bytes] | None = None
        self.fields: dict[str, str] = {}
        self.files: Counter[str] = Counter()
        self.names: set[str] = set()

    def feed(self, data: bytes) -> bytes:
        """Return the rewritten bytes; raises InvalidRequest and TooLarge."""
        self.write(data)
        return self._taken()

    def close(self, added: Mapping[str, str]) -> bytes:
        """Return the end of the form, with added fields; raises InvalidRequest for an incomplete form."""
        self.check_end()
        if self._rules.bare:
            return self._taken()
        for name, value in added.items():
            head = f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            self._out += [self._edge, head.encode()]
        self._out += [self._edge, b"--\r\n"]
        return self._taken()

    def part_started(self, file: FormFile | None) -> None:
        """Check the part, and write its headers unless it is removed."""
        name, self._is_file, self._text = self.field, file is not None, None
        if any(b"\n" in value or b"\0" in value for _, value in self.headers):  # they are passed on
            raise InvalidRequest("a header of the form holds a control character", field="body")
        if not name:
            raise InvalidRequest("a part of the form has no name", field="body")
        self.names.add(name)
        if file is not None:
            self.files[name] += 1
            self._rules.check(file._replace(media_type=file.media_type.partition(";")[0].strip().lower()))
        elif name in self._rules.files:
            raise InvalidRequest(f"{name} must be a file, with a filename", field=name)
        if name in self._rules.read:
            if self._is_file or name in self.fields:
                raise InvalidRequest(f"{name} must be a plain field that is given once", field=name)
            self._text = []
            self.fields[name] = ""
        if name not in self._rules.dropped and not self._rules.bare:
            lines = [b"%b: %b\r\n" % header for header in self.headers]
            self._out += [self._edge, b"\r\n", *lines, b"\r\n"]

    def part_data(self, data: bytes) -> None:
        """Write or collect bytes, within the limits."""
        if self._is_file:
            self._file_bytes += len(data)
            if self._file_bytes > self._rules.max_file_bytes:
                raise too_large(self._rules.max_file_bytes, field=self.field, limit=self._rules.limit)
        if self._text is not None:
            if self.part_bytes > MAX_FIELD_BYTES:
                raise InvalidRequest(f"{self.field} is longer than {MAX_FIELD_BYTES} bytes", field=self.field)
            self._text.append(data)
        if self.field not in self._rules.dropped and (self._is_file or not self._rules.bare):
            self._out.append(data)

    def part_ended(self) -> None:
        """Decode a field that is read, and end a part that is passed on."""
        if self._text is not None:
            try:
                self.fields[self.field] = b"".join(self._text).decode()
            except UnicodeDecodeError:
                raise InvalidRequest(f"{self.field} is no UTF-8 text", field=self.field) from None
        if self._rules.bare:
            return
        if self._is_file and self.field in self._rules.files and not self.part_bytes:
            raise InvalidRequest(f"{self.field} is an empty file", field=self.field)
        if self.field not in self._rules.dropped:
            self._out.append(b"\r\n")

    def _taken(self) -> bytes:
        taken, self._out = b"".join(self._out), []
        return taken


def file_name_of(disposition: bytes, options: Mapping[bytes, bytes]) -> str | None:
    """Return a file name; some clients send a name that is not ASCII in the extended form."""
    if b"filename" in options:
        return options[b"filename"].decode(errors="replace")
    extended = _EXTENDED.search(disposition)
    return None if extended is None else unquote_to_bytes(extended[1]).decode(errors="replace")


def too_large(most: int, *, field: str, limit: str = "ingress.max_upload_bytes") -> TooLarge:
    """Build the error for a too large upload; `limit` names the setting."""
    return TooLarge(f"the upload is larger than {most} bytes ({limit})", field=field)
