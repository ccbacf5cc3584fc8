"""The documentation against the code: generated parts, links, and the words that people search for."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from headrace import docs
from tests.support.markdown import anchors, links, prose

ROOT = Path(__file__).parents[3]
ALL_PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests/README.md"])
CODE = "".join(
    path.read_text(encoding="utf-8")
    for package in ("core", "ingress", "streams", "dispatcher", "compose", "headrace")
    for path in (ROOT / package).rglob("*.py")
)
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", docs.PAGES)
def test_generated_parts_are_current(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert docs.renewed(text) == text, f"{name} is out of date: run `python -m headrace.docs`"


def test_every_generated_part_is_on_a_page() -> None:
    texts = "".join((ROOT / name).read_text(encoding="utf-8") for name in docs.PAGES)
    assert set(re.findall(r"made from the code: (\S+) ", texts)) == set(docs.BLOCKS)


def test_only_the_listed_pages_have_generated_parts() -> None:
    marked = {str(page.relative_to(ROOT)) for page in ALL_PAGES if "<!-- made from" in page.read_text(encoding="utf-8")}
    assert marked == set(docs.PAGES)


def test_a_page_that_was_changed_by_hand_is_renewed(tmp_path: Path) -> None:
    for name in docs.PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace("headrace.tasks.online", "x"), encoding="utf-8")
    assert docs.write(tmp_path) == [name for name in docs.PAGES if name != "docs/operations.md"]
    assert docs.write(tmp_path) == []


@pytest.mark.parametrize("page", ALL_PAGES, ids=[str(page.relative_to(ROOT)) for page in ALL_PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert ROOT in found.parents
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


def test_every_event_of_the_log_table_is_logged() -> None:
    table = OPERATIONS.partition("## Logs")[2].partition("## Metrics")[0]
    rows = re.findall(r"^\| (`.*?`) \| (?:warning|info|error)", table, flags=re.MULTILINE)
    named = set(chain.from_iterable(re.findall(r"`(\w+)`", row) for row in rows))
    assert len(named) > 10
    assert named <= set(re.findall(r'"event": "(\w+)"', CODE))


def test_the_words_of_readiness_are_those_of_the_code() -> None:
    section = OPERATIONS.partition("## What is wrong?")[2]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section.partition("| symptom |")[0], flags=re.MULTILINE)[2:]
    assert len(rows) == 11
    quoted = re.findall(r"`((?:no|not|Kafka|the) [^`]+)`", section)
    assert len(quoted) == 5
    for words in [*rows, *quoted]:
        # What the code fills in: an address, a lane, a partition.
        pieces = re.split(r"…|online|for 10 s|\d+$", words)
        assert all(piece.strip() in CODE for piece in pieces), words


def test_commands_in_the_text_exist() -> None:
    known = {path for path, _ in docs._commands()}
    groups = {path.rpartition(" ")[0] for path in known}
    for page in ALL_PAGES:
        for command in re.findall(r"`headrace ([a-z -]+?)(?: --?[a-z].*?)?(?: [A-Z].*?)?`", prose(page.read_text())):
            assert any(f"headrace {command}".startswith(path) for path in known | groups - {"headrace"}), command


def test_every_promise_names_tests_that_exist() -> None:
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    promises = text.partition("## Promises")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^-|].*? \| (.*) \|$", promises, flags=re.MULTILINE)[1:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/\S+)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
                name
            )
