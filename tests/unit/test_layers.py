"""The shape of the code base: who may import whom, how long a module may be, what the lock files pin."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.support.module_graph import ALL, BELOW, ROOT, imports, modules, own_imports, small_modules
from tests.unit.vocabulary_remaining import SMALL

OURS = {*BELOW, "tests", "bench"}
IMPURE = {
    "aiokafka",
    "aiohttp",
    "asyncio",
    "faust",
    "fastapi",
    "httpx",
    "obstore",
    "random",
    "starlette",
    "time",
    "uuid",
}
"""What a pure module must not import: Kafka, HTTP, clocks and chance. UUID alone, the type, is neither."""
LONGEST = 450
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def packages_used(name: str) -> set[str]:
    """Return the packages that a module imports from, others' and ours."""
    return {imported.partition(".")[0] for imported in imports(ALL[name]) if imported != "uuid.UUID"}


def documentation(path: Path) -> str:
    """Return the docstring of a module."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def packages_above(name: str) -> set[str]:
    """Return the packages of ours that a module imports from and must not."""
    package = name.partition(".")[0]
    return (packages_used(name) & OURS) - BELOW[package] - {package}


def test_imports_go_down_only() -> None:
    assert {name: above for name in ALL if (above := packages_above(name))} == {}


def test_there_are_no_cycles() -> None:
    graph = {name: set(own_imports(path, ALL)) - {name} for name, path in ALL.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_pure_modules_know_no_kafka_http_or_clock() -> None:
    marked = [name for name, path in modules("streams").items() if "Pure." in documentation(path)]
    assert {"streams.state_machine.batches", "streams.state_machine.tasks"} <= {*marked}
    pure = (*modules("schemas"), *marked)
    assert {name: impure for name in pure if (impure := packages_used(name) & IMPURE)} == {}


def test_modules_are_short() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules(*OURS).items()}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_small_modules_say_why_they_are_apart() -> None:
    assert small_modules() - SMALL == set()


def test_the_list_of_small_modules_only_gets_shorter() -> None:
    assert SMALL - small_modules() == set(), "run `python -m tests.support.vocabulary` to shorten the list"


def test_every_package_is_installed() -> None:
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert listed is not None
    there = {
        str(path.parent.relative_to(ROOT)).replace("/", ".") for name in BELOW for path in ROOT.glob(f"{name}/**/*.py")
    }
    assert set(re.findall(r'"([^"]+)"', listed[1])) == there


def test_only_the_reference_avro_library_is_installed() -> None:
    assert distribution("avro-python3").version == "1.10.2"
    with pytest.raises(PackageNotFoundError):
        distribution("avro")


@pytest.mark.parametrize("lock", LOCKS, ids=[path.name for path in LOCKS])
def test_lock_files_pin_versions_and_hashes_and_name_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"^\s*-(i|f|-(extra-)?index-url|-find-links|-trusted-host)\b", text, re.MULTILINE)
    assert "://" not in text
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._\[\]-]+==[^\s;]+( ;.*)? \\\n", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]
        assert not entry.startswith("avro==")
