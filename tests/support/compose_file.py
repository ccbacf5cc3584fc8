"""compose/compose.yaml and compose/Dockerfile as data, the way Docker reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "compose"
IMAGE = "headrace"
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:[?-])([^}]*))?\})")


class MissingVariable(Exception):
    """A variable that compose demands is not set."""


class Instruction(NamedTuple):
    """One instruction of a Dockerfile."""

    name: str
    words: list[str]


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read compose.yaml with its variables filled in."""
    loaded = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    filled = _filled(loaded, environ)
    assert isinstance(filled, dict)
    return filled


def roles(compose: Mapping[str, Any]) -> dict[str, Any]:
    """Return the services that run our image."""
    return {name: service for name, service in compose["services"].items() if service["image"] == IMAGE}


def headrace_variables(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that a service is given."""
    return {name: value for name, value in service["environment"].items() if name.startswith("HEADRACE_")}


def seconds(duration: str) -> float:
    """Read a duration such as 30s."""
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, f"{duration} is not in whole seconds"
    return float(match[1])


def dockerfile() -> list[list[Instruction]]:
    """Return the instructions of each stage."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        words = json.loads(rest) if rest.startswith("[") else rest.split()
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(Instruction(name, words))
    return stages


def of(stage: list[Instruction], name: str) -> Iterator[list[str]]:
    """Yield the words of every such instruction."""
    return (instruction.words for instruction in stage if instruction.name == name)


def _filled(value: Any, environ: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda match: _value(match, environ), value)
        case dict():
            return {key: _filled(item, environ) for key, item in value.items()}
        case list():
            return [_filled(item, environ) for item in value]
        case _:
            return value


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    name, operator, word = match.groups()
    if given := environ.get(name):
        return given
    if operator == ":?":
        raise MissingVariable(f"{name}: {word}")
    return word or ""
