"""Logging of every role: text for people or one JSON object per line, and never a key in either.

Secrets are taken out of the finished line, so that they cannot pass through a traceback or an `extra` field.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from core.observability.throttle import Throttle
from core.observability.transient_errors import Passing
from core.settings.models import LogSettings

HIDDEN = "***"
SHORTEST_SECRET = 4
"""Hiding anything shorter would eat ordinary words."""
CHATTER = ("aiokafka", "faust", "mode", "httpx", "httpcore", "asyncio", "uvicorn.access", "kafka")
"""Libraries whose info lines tell of their inside and not of a task."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event", "taskName", "color_message"}
_SCHEMES = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=:-]+")
_HEADERS = re.compile(
    r"""(?ix) ( \b(?:proxy-)?authorization | \bx-api-key | \bapi[-_]key )
        ( \\?["']? \s* [:=,] \s* (?: b(?=\\?["']) )? \\?["']? )
        ( (?:bearer|basic) \s+ )?
        [^\s"'\\,)}\]]+"""
)


REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""What the HTTP request is called that is being served; its log lines carry it."""


class Redactor:
    """Takes configured secrets, Bearer tokens and Authorization values out of a text."""

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
    """One line for people: time, level, role, logger, message, then the extra fields."""

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
    """One object per line, for machines; all `extra` fields stand beside the fixed ones."""

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
    """Add the request that a line belongs to, when there is one."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        record.request_id = request_id
    return True


class _Handler(logging.StreamHandler[Any]):
    """Ours, told apart from handlers that a test or a host program has put on the root logger."""


def setup_logging(log: LogSettings, role: str, *, secrets: Iterable[str] = ()) -> None:
    """Send all logs of this process to stderr in the chosen format; a second call replaces the first."""
    redact = Redactor(secrets)
    handler = _Handler()
    handler.setFormatter(JsonFormatter(role, redact) if log.format == "json" else TextFormatter(role, redact))
    level = logging.getLevelNamesMapping()[log.level.upper()]
    handler.addFilter(Passing(level))  # before the other, for it has to see every line
    handler.addFilter(Throttle(CHATTER))
    handler.addFilter(_with_request)
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # At debug everything is asked for; else info lines of libraries go, and a level above warning still counts.
    quiet = logging.NOTSET if level <= logging.DEBUG else max(level, logging.WARNING)
    for name in CHATTER:
        logging.getLogger(name).setLevel(quiet)


def _forms(secret: str) -> set[str]:
    """Return a secret as it is, as the repr of a container shows it, and both as JSON writes them."""
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
