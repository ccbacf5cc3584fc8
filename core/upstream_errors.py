"""Extract the reason and the status of an upstream error, in any common format. Pure.

Servers have no common form: OpenAI and vLLM send {"error": {…}}, Ollama {"error": "…"}, FastAPI {"detail": …}, older
vLLM and FastChat {"object": "error", "message": …}, TEI {"error": "…", "error_type": …}, proxies plain text or a page.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from core import lenient_json
from core.sse import event_of

MAX_REASON = 400
"""Maximum length of a reason, characters."""
READ_BYTES = 65_536
"""Maximum size of an error body that is parsed."""
UNNAMED = 502
"""Status of an error that was sent with status 200 and has no status of its own."""
HIDDEN = "[address]"
_STATUS_WORDS = (
    (429, ("rate_limit", "ratelimit", "too_many_requests", "toomanyrequests", "quota")),
    (401, ("authentication", "invalid_api_key", "unauthorized")),
    (403, ("permission", "forbidden")),
    (404, ("not_found", "notfound")),
    (413, ("too_large", "toolarge")),
    (503, ("overloaded", "unavailable", "loading")),
    (504, ("timeout",)),
    (400, ("invalid_request", "badrequest", "bad_request", "validation", "context_length", "content_filter")),
)
"""Pattern of an error's type or code → the usual status."""
_PRIVATE_ENDINGS = (".local", ".internal", ".lan", ".svc", ".intranet", ".localdomain", ".cluster.local")
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,12}://[^\s\"'<>()]+")
_HOST = re.compile(
    r"\[[0-9a-fA-F:.]{2,45}\](?::\d{1,5})?"
    r"|(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?(?![\w.])"
    r"|(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){1,7}(?:(?::[0-9a-fA-F]{1,4}){1,6}|:)(?![\w:])"
    r"|(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])|(?<![\w:])::1(?![\w:])"
    r"|(?<![\w.-])[a-zA-Z][a-zA-Z0-9-]*(?:\.[a-zA-Z0-9-]+){0,8}:\d{2,5}(?![\w.])"
    r"|(?<![\w.-])(?:[\w-]+\.){1,8}(?:local|internal|lan|svc|intranet|localdomain)(?![\w-])"
    r"|(?<![\w.-])localhost(?![\w.-])"
)
PAGE_CHARS = 8_192
_HIDDEN_TEXT = re.compile(r"<(style|script)\b.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]{0,500}>")
_TITLE = re.compile(r"<title[^>]{0,100}>(.{0,500}?)</title", re.IGNORECASE | re.DOTALL)


class Reported(NamedTuple):
    """An error that came with status 200."""

    status: int
    reason: str


def reported(document: object) -> Reported | None:
    """Return the error in a response with status 200; None if it is not an error."""
    if not isinstance(document, Mapping):
        return None
    kind = document.get("type")
    if not (document.get("error") or document.get("object") == "error" or kind in ("error", "response.failed")):
        return None
    if kind == "response.failed" and isinstance(document.get("response"), Mapping):
        document = document["response"]
    return Reported(_status(document), reason_of(document) or "the error has no message")


def reported_in_frame(payload: bytes) -> Reported | None:
    """Return the error in the payload of a stream event; None if it is not an error."""
    if event_of(payload) == "error":
        document = lenient_json.document(payload)
        reason = reason_of(document) or _plain(payload.decode(errors="replace"))
        return Reported(_status(document), reason or "the error has no message")
    # Errors are rare: only payloads with a typical word are parsed.
    if b'"error"' not in payload and b'"response.failed"' not in payload:
        return None
    return reported(lenient_json.document(payload))


def reason_in(body: bytes | None, content_type: str) -> str | None:
    """Return the reason in the body of a failed response; None if there is no readable one."""
    if not body or len(body) > READ_BYTES:
        return None
    try:
        document = lenient_json.loads(body)
    except ValueError:
        return _text_reason(body, content_type)
    return reason_of(document)


def reason_of(document: object) -> str | None:
    """Return the reason in a document of any known format."""
    found = _sentence(document)
    return _plain(lenient_json.joined(found)) if found else None


def hidden(text: str, *, own: str | None = None) -> str:
    """Return a text without internal addresses; `own` is the URL of the server."""
    text = _HOST.sub(HIDDEN, _URL.sub(_url, text))
    host = urlsplit(own).hostname if own is not None else None
    return text.replace(host, HIDDEN) if host and _is_private(host) else text


def without_addresses(body: bytes | None, *, own: str | None = None) -> bytes | None:
    """Return an error body without internal addresses, otherwise unchanged; binary bodies stay unchanged."""
    if not body or len(body) > READ_BYTES:
        return body
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    return hidden(text, own=own).encode()


def _sentence(value: object, depth: int = 0) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if depth > 3:
        return None
    if isinstance(value, list):
        several = [found for one in value[:3] if (found := _problem(one, depth + 1))]
        return "; ".join(several) or None
    if not isinstance(value, Mapping):
        return None
    for name in ("error", "message", "msg", "detail", "error_message", "errors", "reason", "description", "title"):
        if found := _sentence(value.get(name), depth + 1):
            return found
    return _sentence(value.get("code"), depth + 1) or _sentence(value.get("type"), depth + 1)


def _problem(value: object, depth: int) -> str | None:
    """Return one of several validation errors; FastAPI includes the location of each."""
    found = _sentence(value, depth)
    place = value.get("loc") if isinstance(value, Mapping) else None
    if found and isinstance(place, list) and all(isinstance(step, str | int) for step in place):
        return f"{'.'.join(map(str, place[:8]))}: {found}"
    return found


def _status(document: object) -> int:
    """Return the HTTP status of an error."""
    nested = document.get("error") if isinstance(document, Mapping) else None
    for members in (nested, document):
        if not isinstance(members, Mapping):
            continue
        for name in ("status_code", "http_status", "status", "code"):
            if (number := _number(members.get(name))) is not None:
                return number
        words = f"{members.get('type')} {members.get('code')} {members.get('error_type')}".lower()
        for status, several in _STATUS_WORDS:
            if any(word in words for word in several):
                return status
    return UNNAMED


def _number(value: Any) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599 else None


def _text_reason(body: bytes, content_type: str) -> str | None:
    """Return the text of an HTML page or plain text; None if it contains control characters."""
    if content_type.lower().startswith(("audio/", "image/", "video/")):
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    if any(char < " " and char not in "\r\n\t\f" for char in text[:1_000]):
        return None
    if "<" in text[:200] and ("html" in content_type.lower() or "<html" in text[:1_000].lower()):
        title = _TITLE.search(text)
        return _plain(_TAG.sub(" ", title[1] if title else _HIDDEN_TEXT.sub(" ", text[:PAGE_CHARS]))) or None
    return _plain(text) or None


def _plain(text: str) -> str:
    """Return a text as one line without internal addresses, truncated."""
    line = hidden(" ".join(text[: 4 * MAX_REASON].split()))
    line = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"


def _url(found: re.Match[str]) -> str:
    """Hide a URL unless its host is a public name: a link to documentation is useful."""
    try:
        host = urlsplit(found[0]).hostname or ""
    except ValueError:
        return HIDDEN
    return HIDDEN if _is_private(host) or urlsplit(found[0]).scheme not in ("http", "https") else found[0]


def _is_private(host: str) -> bool:
    if "." not in host or host.endswith(_PRIVATE_ENDINGS):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
