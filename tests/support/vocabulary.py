"""Retired words in names and messages of product code, and class names that are used twice.

`python -m tests.support.vocabulary` takes entries that are not needed any more out of the lists of what remains
(tests/unit/vocabulary_remaining.py); it adds none.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from tests.support.module_graph import ROOT, small_modules
from tests.unit.vocabulary_remaining import REMAINING, SMALL, TWICE

PACKAGES = ("schemas", "core", "ingress", "streams", "dispatcher", "compose", "headrace")
RETIRED = {
    "told",
    "untold",
    "kept",
    "keeper",
    "heard",
    "spoken",
    "said",
    "judge",
    "judged",
    "judges",
    "twin",
    "twins",
    "door",
    "doors",
    "letter",
    "letters",
    "bury",
    "buried",
    "hands",
    "crew",
    "pulse",
    "courier",
    "rung",
    "ears",
    "torso",
    "torsos",
    "lane",
    "lanes",
    "feeder",
    "feeders",
    "misfit",
    "believed",
    "overtaken",
    "anew",
    "whoever",
    "nobody",
    "somebody",
}
"""Words that nobody outside this project would search for; the glossary has the term for each."""
CONTRACT = {
    "pulse",  # kind of a control record
    "buried_at",  # member of the dead letters' HTTP objects
    "last_heard_at",  # member of the list of workers
    "DEAD_LETTER",
    "DEAD_LETTERS",
    "dead_letter",
    "dead_letters",
    "DeadLetter",
}
"""Names that records and HTTP objects carry, and the field's own term with one of the words in it."""
DEAD_LETTER = re.compile(r"dead[-_ ]?letters?", re.IGNORECASE)
LISTS = ROOT / "tests/unit/vocabulary_remaining.py"
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def retired_in(text: str) -> set[str]:
    """Return the retired words of an identifier or a sentence."""
    if text in CONTRACT:
        return set()
    return {word.lower() for word in WORD.findall(DEAD_LETTER.sub("", text))} & RETIRED


def names_of(tree: ast.AST) -> Iterator[str]:
    """Yield the identifiers that a module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def _strings(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def messages_of(tree: ast.AST) -> Iterator[str]:
    """Yield what users and operators read: log lines and events, raised errors, help and field descriptions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:  # also raise Error("…").with_task(…)
            for call in ast.walk(node.exc):
                if isinstance(call, ast.Call):
                    for argument in call.args:
                        yield from _strings(argument)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if re.fullmatch(r"(?:self\.)?_?log(?:ger)?\.(?:debug|info|warning|error|exception|log)", called):
            for argument in (*node.args, *(word.value for word in node.keywords)):
                yield from _strings(argument)
        elif called == "click.echo":
            for argument in node.args:
                yield from _strings(argument)
        for word in node.keywords:
            if word.arg in ("help", "description"):
                yield from _strings(word.value)


@cache
def found() -> dict[str, frozenset[str]]:
    """Return file → the retired words in its identifiers and messages."""
    out = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            words = {word for text in (*names_of(tree), *messages_of(tree)) for word in retired_in(text)}
            if words:
                out[str(path.relative_to(ROOT))] = frozenset(words)
    return out


@cache
def classes() -> dict[str, frozenset[str]]:
    """Return the name of each class that is defined twice → the files that define it; private ones are left out."""
    out: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    out[node.name].add(str(path.relative_to(ROOT)))
    return {name: frozenset(files) for name, files in out.items() if len(files) > 1}


def shorten() -> None:
    """Take entries out of the lists that are not needed any more."""
    now, twice = found(), classes()
    left = {file: sorted(words & now.get(file, frozenset())) for file, words in sorted(REMAINING.items())}
    lines = [f'    "{file}": frozenset({json.dumps(words)}),' for file, words in left.items() if words]
    names = [f'    "{name}",' for name in sorted(TWICE & twice.keys())]
    small = [f'    "{name}",' for name in sorted(SMALL & small_modules())]
    head, _, _ = LISTS.read_text().partition("REMAINING")
    LISTS.write_text(
        f"{head}REMAINING: dict[str, frozenset[str]] = {{\n" + "\n".join(lines) + "\n}\n"
        '"""File → retired words in its identifiers and messages."""\n'
        f"TWICE: set[str] = {_set_of(names)}\n"
        '"""Names of classes that two modules or more define."""\n'
        f"SMALL: set[str] = {_set_of(small)}\n"
        '"""Modules below 60 lines with one importer whose docstrings give no reason."""\n'
    )


def _set_of(lines: list[str]) -> str:
    return "{\n" + "\n".join(lines) + "\n}" if lines else "set()"


if __name__ == "__main__":
    shorten()
