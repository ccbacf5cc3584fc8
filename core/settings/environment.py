"""The HEADRACE_ variables of a process: settings, files with a setting, and variables that Kubernetes sets.

Kubernetes sets variables for every Service of a namespace: those of a Service headrace or headrace-ingress start like
ours, and one may have the name of a setting. They are recognised by name and value together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from core.errors import ConfigError
from core.settings.catalog import PREFIX, by_name, sections
from core.settings.renamed import RENAMED, RENAMED_MEMBERS, with_new_names

IGNORED = (f"{PREFIX}TEST_", f"{PREFIX}BENCH_")
"""Names reserved for tests and benchmarks."""
OF_CLIENTS = (f"{PREFIX}URL", f"{PREFIX}API_KEY", f"{PREFIX}API_KEY_FILE")
"""Variables of the HTTP client commands; not settings."""
FILE = "_FILE"
FILE_BYTES = 1_048_576
"""Largest file that a variable may name; a device or a log would otherwise fill the memory."""

_URL = re.compile(r"(?:tcp|udp|sctp)://(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65_535


def _is_url(text: str) -> bool:
    url = _URL.fullmatch(text)
    return url is not None and _is_port(url[3]) and _is_address(url[1] or url[2])


def _service(name: str) -> re.Pattern[str]:
    return re.compile(rf"{PREFIX.removesuffix('_')}(?:_[A-Z0-9_]+)?_{name}")


_SERVICE: Sequence[tuple[re.Pattern[str], Callable[[str], bool]]] = (
    (_service(r"(?:SERVICE_HOST|PORT_\d+_(?:TCP|UDP|SCTP)_ADDR)"), _is_address),
    (_service(r"(?:SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)_PORT)"), _is_port),
    (_service(r"PORT_\d+_(?:TCP|UDP|SCTP)_PROTO"), frozenset(("tcp", "udp", "sctp")).__contains__),
    (_service(r"PORT(?:_\d+_(?:TCP|UDP|SCTP))?"), _is_url),
)
"""Forms of names, each with the form of its values; HEADRACE_SERVICE_PORT is a number or, of a Service that is called
headrace-service, a URL."""


class Given(NamedTuple):
    """What the environment sets."""

    values: dict[str, str]
    """The variable of a setting → its text."""
    sources: dict[str, str]
    """The variable of a setting → the one that was given: itself, its old name, or the one that names a file."""
    renamed: list[tuple[str, str]]
    """Old names that were given, with the new ones."""


def given(environ: Mapping[str, str]) -> Given:
    """Collect the variables that are set; an unknown name is an error.

    Raises ConfigError, which never contains the contents of a file.
    """
    old_names = {_variable(old): _variable(new) for old, new in RENAMED.items()}
    names: set[str] = set()
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name.startswith(IGNORED) or name in OF_CLIENTS:
            continue
        if is_service_variable(name, value):
            continue
        known = by_name().keys() | old_names.keys()
        setting = name if name in known else name.removesuffix(FILE)
        if setting not in known:
            raise ConfigError(f"{name} is not a setting{nearest(name, _names(name))}")
        names.add(setting)
    values = {name: text for name in names if (text := text_of(name, environ)) is not None}
    sources = {name: name + FILE if environ.get(name + FILE) else name for name in values}
    renamed = []
    for old, new in old_names.items():
        if old not in values:
            continue
        if new in values:
            raise ConfigError(
                f"{sources[old]} and {sources[new]} are both set; {old} is the old name of {new}, remove it"
            )
        values[new], sources[new] = values.pop(old), sources.pop(old)
        renamed.append((old, new))
    return Given(*_with_new_members(values, sources, renamed))


def _variable(dotted: str) -> str:
    return PREFIX + dotted.replace(".", "_").upper()


def _with_new_members(
    values: dict[str, str], sources: dict[str, str], renamed: list[tuple[str, str]]
) -> tuple[dict[str, str], dict[str, str], list[tuple[str, str]]]:
    """Replace old names of members in tables that are given as JSON; other text is left to validation."""
    for table in RENAMED_MEMBERS:
        if (name := _variable(table)) not in values:
            continue
        try:
            entries = json.loads(values[name])
        except ValueError:
            continue
        nested, found = with_new_names({table: entries}, source=sources[name])
        if found:
            values[name] = json.dumps(nested[table])
            renamed += found
    return values, sources, renamed


def text_of(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the value of a variable or of the file in NAME_FILE; None if neither is set. Raises ConfigError."""
    value, path = environ.get(name), environ.get(name + FILE)
    if value and is_service_variable(name, value):
        value = None
    if path and value:
        raise ConfigError(f"{name} and {name}{FILE} are both set; only one of them may be")
    return _file_text(name + FILE, path) if path else value or None


def is_service_variable(name: str, value: str) -> bool:
    """Return whether Kubernetes has set a variable for a Service, by the form of its name and value."""
    return any(form.fullmatch(name) and fits(value) for form, fits in _SERVICE)


def service_variables(environ: Mapping[str, str]) -> list[str]:
    """List the variables that are ignored because Kubernetes has set them for a Service."""
    return sorted(name for name, value in environ.items() if is_service_variable(name, value))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint "did you mean …" for a wrong name."""
    near = get_close_matches(name, [*known, *sections()], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else "; `headrace config print` lists all"


def _names(wrong: str) -> list[str]:
    """List the valid names that a wrong name may be."""
    files = [setting + FILE for setting in by_name()] if wrong.endswith(FILE) else []
    return [*by_name(), *files]


def _file_text(variable: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the file {path} that {variable} names cannot be read: {error.strerror}") from None
    except ValueError:  # the path contains a NUL byte
        raise ConfigError(f"the file that {variable} names cannot be read: its path is invalid") from None
    if len(data) > FILE_BYTES:
        raise ConfigError(f"the file {path} that {variable} names is larger than {FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"the file {path} that {variable} names is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not text:
        raise ConfigError(f"the file {path} that {variable} names is empty")
    return text
