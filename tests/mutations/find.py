"""Where the text of a mutation and the tests that it names stand."""

from __future__ import annotations

import re
from pathlib import Path

from tests.mutations.catalogue import Mutation

ROOT = Path(__file__).parents[2]


def occurrences(mutation: Mutation, root: Path = ROOT) -> int:
    """Count how often a mutation's text stands in its file."""
    return (root / mutation.file).read_text().count(mutation.old)


def nodes_of(mutation: Mutation, root: Path = ROOT) -> list[str]:
    """Return the node ids of a mutation's tests, as far as they exist."""
    modules = {path: path.read_text() for path in sorted((root / "tests").rglob("test_*.py"))}
    return [
        f"{path.relative_to(root)}::{name}"
        for name in mutation.tests
        for path, text in modules.items()
        if re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)
    ]
