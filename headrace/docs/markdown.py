"""Markdown tables, and the source files that generated tables are read from."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "ingress", "streams", "dispatcher", "compose", "headrace")


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a table; line breaks in cells become spaces, and bars are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield package and syntax tree of every module of the product."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield package, ast.parse(path.read_text(encoding="utf-8"))


def string_keys(node: ast.expr) -> dict[str, ast.expr]:
    """Return the members of a dict display whose keys are literal strings; empty for anything else."""
    if not isinstance(node, ast.Dict):
        return {}
    return {
        key.value: value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def first_line(docstring: str | None) -> str:
    """Return the first line of a docstring, or an empty text."""
    return (docstring or "").strip().partition("\n")[0]
