"""Logging of every role: text or one JSON object per line, without secrets.

Secrets are removed from the formatted line, so that they cannot leak through a traceback or an `extra` field.
Repeated lines of libraries are throttled.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from core.observability.transient_errors import TransientErrors
from core.settings.models import LogSettings

HIDDEN = "***"
SHORTEST_SECRET = 4
"""Hiding anything shorter would remove ordinary words."""
THROTTLE_S = 10.0
"""A library's repeated line is logged once in this time, with a count of the others."""
MAX_KINDS = 1_000
"""Kinds of lines that are remembered; further ones are not throttled."""
CHATTER = ("aiokafka", "faust", "mode", "httpx", "httpcore", "asyncio", "uvicorn.access", "kafka")
"""Libraries whose info lines describe their internals."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event", "taskName", "color_message"}
_SCHEMES = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=:-]+")
_HEADERS = re.compile(
    r"""(?ix) ( \b(?:proxy-)?authorization | \bx-api-key | \bapi[-_]key )
        ( \\?["']? \s* [:=,] \s* (?: b(?=\\?["']) )? \\?["']? )
        ( (?:bearer|basic) \s+ )?
        [^\s"'\\,)}\]]+"""
)


REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the HTTP request that is being served; its log lines carry it."""


class Redactor:
    """Removes configured secrets, Bearer tokens and Authorization values from a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in _forms(secret)}
        # The longest first: one key may be the beginning of another.
        alternatives = "|".join(re.escape(form) for form in sorted(known, key=len, reverse=True))
        self._known = re.compile(alternatives) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        text = _HEADERS.sub(rf"\1\2\3{HIDDEN}", text)
        return _SCHEMES.sub(rf"\1\2{HIDDEN}", text)


class TextFormatter(logging.Formatter):
    """One line: time, level, role, logger, message, then the extra fields."""

    def __init__(self, role: str, redact: Redactor) -> None:
        super().__init__()
        self._role = role
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname:<7} {self._role} {record.name}: {record.getMessage()}"
        fields = " ".join(f"{name}={value}" for name, value in _extra(record).items())
        if fields:
            line += f" [{fields}]"
        if trace := _trace(self, record):
            line += "\n" + trace
        return self._redact(line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line; `extra` fields are members beside the fixed ones."""

    def __init__(self, role: str, redact: Redactor) -> None:
        super().__init__()
        self._role = role
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = _extra(record) | {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "role": self._role,
            "event": getattr(record, "event", None),
            "message": record.getMessage(),
        }
        if trace := _trace(self, record):
            fields["exception"] = trace
        return self._redact(json.dumps(fields, default=_text, skipkeys=True))


def _with_request(record: logging.LogRecord) -> bool:
    """Add the id of the current request, if any."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        record.request_id = request_id
    return True


class Throttle(logging.Filter):
    """Log one line of each kind per interval; a kind is the logger and the message before formatting.

    Only for loggers below the given names. While a broker is away aiokafka logs several lines a second for each of its
    connections: gigabytes in an outage of hours.
    """

    def __init__(self, names: tuple[str, ...], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._names = names
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide about one line; a line that passes carries the count of those that did not."""
        if record.name.partition(".")[0] not in self._names or not isinstance(record.msg, str):
            return True
        kind, now = (record.name, record.msg), self._clock()
        logged_s, suppressed = self._last.get(kind, (-THROTTLE_S, 0))
        if now - logged_s < THROTTLE_S:
            self._last[kind] = (logged_s, suppressed + 1)
            return False
        if kind in self._last or len(self._last) < MAX_KINDS:
            self._last[kind] = (now, 0)
        if suppressed:
            record.msg = f"{record.msg} ({suppressed} similar lines suppressed)"
        return True


class _Handler(logging.StreamHandler[Any]):
    """Distinguishes our handler from those that a test or a host program has added to the root logger."""


def setup_logging(log: LogSettings, role: str, *, secrets: Iterable[str] = ()) -> None:
    """Send all logs of this process to stderr in the chosen format; a second call replaces the first."""
    redact = Redactor(secrets)
    handler = _Handler()
    handler.setFormatter(JsonFormatter(role, redact) if log.format == "json" else TextFormatter(role, redact))
    level = logging.getLevelNamesMapping()[log.level.upper()]
    handler.addFilter(TransientErrors(level))  # before the throttle, because it has to see every line
    handler.addFilter(Throttle(CHATTER))
    handler.addFilter(_with_request)
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # At debug everything is logged; otherwise libraries log warnings and above, or less if the level is higher.
    quiet = logging.NOTSET if level <= logging.DEBUG else max(level, logging.WARNING)
    for name in CHATTER:
        logging.getLogger(name).setLevel(quiet)


def _forms(secret: str) -> set[str]:
    """Return a secret, its repr inside a container, and both in JSON escaping."""
    shown = {secret, repr(secret)[1:-1]}
    return shown | {json.dumps(form)[1:-1] for form in shown}


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
