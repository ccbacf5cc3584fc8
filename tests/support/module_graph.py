"""The modules of the product and what they import, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
BELOW = {
    "schemas": set(),
    "core": {"schemas"},
    "ingress": {"schemas", "core"},
    "streams": {"schemas", "core"},
    "dispatcher": {"schemas", "core"},
    "compose": {"schemas", "core", "ingress", "streams", "dispatcher"},
    "headrace": {"schemas", "core", "ingress", "streams", "dispatcher", "compose"},
}
"""Package → the packages of ours that it may import."""
SHORT = 60
"""A module below so many lines that one module alone imports says in its docstring why it is apart ("Apart, …")."""


def modules(*packages: str) -> dict[str, Path]:
    """Return dotted name → file."""
    found = {}
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> frozenset[str]:
    """List every dotted name that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def own_imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Narrow the imports to modules of ours; `from module import name` counts as the module."""
    for name in imports(path):
        candidate = name if name in known else name.rpartition(".")[0]
        if candidate in known:
            yield candidate


ALL = modules(*BELOW)


def small_modules() -> set[str]:
    """Return the modules below SHORT lines with one importer whose docstring gives no reason."""
    importers: dict[str, set[str]] = {name: set() for name in ALL}
    for name, path in ALL.items():
        for imported in set(own_imports(path, ALL)) - {name}:
            importers[imported].add(name)
    small = (
        name
        for name, path in ALL.items()
        if path.name not in ("__init__.py", "__main__.py")
        and len(importers[name]) == 1
        and len(path.read_text().splitlines()) < SHORT
    )
    return {name for name in small if "Apart" not in (ast.get_docstring(ast.parse(ALL[name].read_text())) or "")}
