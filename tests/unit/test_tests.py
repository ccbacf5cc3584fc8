"""The shape of the tests: what several of them need is in tests/support/ or in a conftest, and there once."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.distribution import SECONDS, SHARED_SETUP
from tests.support.markdown import links

TESTS = Path(__file__).parents[1]
MODULES = sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py"))
FEW_NODES = 40
"""Smaller helpers are an expression or two, which it costs more to share than it saves."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((TESTS / module).read_text())


def imported(module: str) -> Iterator[str]:
    """Yield the name of every module of the tests that this one may import from."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.rpartition(".")[2] for name in names if name.startswith("tests."))


def definitions(module: str) -> Iterator[Definition]:
    """Yield the fixtures and helpers of a module."""
    for node in parsed(module).body:
        if isinstance(node, Definition) and not node.name.startswith(("test_", "Test")):
            yield node


def is_fixture(node: Definition) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)


def content(node: Definition) -> str:
    """Return what a definition takes and does, without its name, its docstring and its types."""
    statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
    arguments = (
        [] if isinstance(node, ast.ClassDef) else [one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)]
    )
    return "\n".join([", ".join(arguments), *map(ast.unparse, statements)])


def repeated(*, fixtures: bool) -> list[set[str]]:
    """List the definitions that stand more than once, each as the set of its places."""
    places = defaultdict(set)
    for module in MODULES:
        for node in definitions(module):
            if is_fixture(node) == fixtures and (fixtures or sum(1 for _ in ast.walk(node)) > FEW_NODES):
                places[node.name if fixtures else "", content(node)].add(f"{module}::{node.name}")
    return [found for found in places.values() if len(found) > 1]


def test_nothing_is_imported_from_a_test_module_or_a_conftest() -> None:
    wrong = {
        f"{module} imports {name}"
        for module in MODULES
        for name in imported(module)
        if (name == "conftest" or name.startswith("test_"))
    }
    assert wrong == set()


def test_no_fixture_stands_twice() -> None:
    assert repeated(fixtures=True) == []


def test_no_helper_stands_twice() -> None:
    assert repeated(fixtures=False) == []


def test_the_page_about_the_tests_names_every_folder() -> None:
    page = (TESTS / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders <= set(links(page)), folders - set(links(page))


@pytest.mark.parametrize("unit", [*SHARED_SETUP, *SECONDS])
def test_the_units_that_are_shared_out_exist(unit: str) -> None:
    path = TESTS.parent / unit
    assert path.is_dir() if unit.endswith("/") else path.is_file()
