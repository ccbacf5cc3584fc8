"""The documentation against the code: generated parts, links, and the words that people search for."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from core.settings.catalog import documented
from headrace import docs
from headrace.docs import command_line, log_events
from ingress.api.openapi import document
from tests.support.markdown import anchors, links, prose

ROOT = Path(__file__).parents[3]
PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in docs.pages(ROOT)}
OTHER_PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "tests/README.md"]
ALL_PAGES = PAGES | {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in OTHER_PAGES}
CODE = "".join(
    path.read_text(encoding="utf-8")
    for package in ("core", "ingress", "streams", "dispatcher", "compose", "headrace")
    for path in (ROOT / package).rglob("*.py")
)


def page_with(text: str) -> str:
    """Return the one page that holds a text."""
    [found] = (page for page in PAGES.values() if text in page)
    return found


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "<!-- generated:" in text])
def test_generated_parts_are_current(name: str) -> None:
    assert docs.renewed(PAGES[name]) == PAGES[name], f"{name} is out of date: run `python -m headrace.docs`"


def test_every_generated_part_is_on_one_page() -> None:
    found = re.findall(r"<!-- generated: (\S+) -->", "".join(PAGES.values()))
    assert sorted(found) == sorted(docs.BLOCKS)


def test_every_generated_part_has_an_end() -> None:
    for name, text in ALL_PAGES.items():
        assert re.findall(r"<!-- generated: (\S+) -->", text) == re.findall(r"<!-- end: (\S+) -->", text), name
        assert "<!-- made" not in text, name


def test_a_page_that_was_changed_by_hand_is_renewed(tmp_path: Path) -> None:
    for name, text in PAGES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace("| `headrace.tasks.online` |", "| x |"), encoding="utf-8")
    assert docs.write(tmp_path) == ["docs/reference/topics.md"]
    assert docs.write(tmp_path) == []


@pytest.mark.parametrize("name", ALL_PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in links(ALL_PAGES[name]):
        path, _, anchor = target.partition("#")
        found = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert ROOT in found.parents
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", PAGES)
def test_no_heading_stands_twice_on_a_page(name: str) -> None:
    headings = re.findall(r"^#+ +(.+?) *$", prose(PAGES[name]), flags=re.MULTILINE)
    assert len(headings) == len(set(headings)), [one for one in headings if headings.count(one) > 1]


def test_every_guide_can_be_reached_from_the_index() -> None:
    reached, left = set(), ["docs/index.md"]
    while left:
        name = left.pop()
        if name in reached or name not in PAGES:
            continue
        reached.add(name)
        folder = (ROOT / name).parent
        left += [
            str((folder / path).resolve().relative_to(ROOT))
            for link in links(PAGES[name])
            if (path := link.partition("#")[0])
        ]
    guides = {name for name in PAGES if name.startswith(("docs/quickstart", "docs/how-to/", "docs/reference/"))}
    assert sorted(guides - reached) == []


def test_every_logging_call_with_an_event_is_listed() -> None:
    written = set(re.findall(r'extra=\{\s*"event": "(\w+)"', CODE))
    assert len(written) > 50
    assert written <= {one.event for one in log_events.log_events()}


def test_every_event_that_needs_action_is_logged() -> None:
    table = (
        page_with("| event | level | what to do |").partition("| event | level | what to do |")[2].partition("\n\n")[0]
    )
    rows = re.findall(r"^\| (`.*?`) \| (?:warning|info|error)", table, flags=re.MULTILINE)
    named = set(chain.from_iterable(re.findall(r"`(\w+)`", row) for row in rows))
    assert len(named) > 10
    assert named <= {one.event for one in log_events.log_events()}


def test_the_words_of_readiness_are_those_of_the_code() -> None:
    section = page_with("| missing | reason").partition("| missing | reason")[2]
    table = section.partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", table, flags=re.MULTILINE)[1:]
    assert len(rows) == 11
    quoted = re.findall(r"`((?:no|not|event|queues|results) [^`]+)`", section)
    assert len(quoted) == 5
    for words in [*rows, *quoted]:
        # What the code fills in: an address, a level, a partition.
        pieces = re.split(r"…|online|for 10 s|\d+$", words)
        assert all(piece.strip() in CODE for piece in pieces), words


def test_metrics_in_the_text_exist() -> None:
    known = set(re.findall(r"^\| `(headrace_\w+)`", PAGES["docs/reference/metrics.md"], re.MULTILINE))
    named = {
        name: set(re.findall(r"`(headrace_\w+)", text)) - known
        for name, text in PAGES.items()
        if name != "docs/operations/renamed.md"
    }
    assert {name: unknown for name, unknown in named.items() if unknown} == {}


def test_settings_in_the_text_exist() -> None:
    known = {one.dotted for one in documented()}
    sections = {dotted.partition(".")[0] for dotted in known if "." in dotted} - {"kafka", "queues", "models"}
    for name, text in PAGES.items():
        if name in ("docs/operations/renamed.md", "docs/reference/topics.md") or "/decisions/" in name:
            continue
        named = {one for one in re.findall(r"`([a-z]+\.[a-z_]+)`", text) if one.partition(".")[0] in sections}
        assert named <= known, (name, named - known)


def test_every_route_of_the_document_has_a_description() -> None:
    reference = PAGES["docs/reference/http-api.md"]
    described = set(re.findall(r"^### ([A-Z]+ /\S*)$", reference, flags=re.MULTILINE))
    aliases = set(re.findall(r"`(/\S+)`", "".join(re.findall(r"^Also as .*$", reference, flags=re.MULTILINE))))
    for path, methods in document()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in described or path in aliases, path


def test_commands_without_options_are_described_too() -> None:
    reference = PAGES["docs/reference/cli.md"]
    for path, _ in command_line.commands():
        assert f"\n## {path}\n" in reference


def test_commands_in_the_text_exist() -> None:
    known = {path for path, _ in command_line.commands()}
    groups = {path.rpartition(" ")[0] for path in known}
    for page in ALL_PAGES.values():
        for command in re.findall(r"`headrace ([a-z -]+?)(?: --?[a-z].*?)?(?: [A-Z].*?)?`", prose(page)):
            assert any(f"headrace {command}".startswith(path) for path in known | groups - {"headrace"}), command


def test_every_promise_names_tests_that_exist() -> None:
    promises = page_with("| promise | shown by |").partition("| promise | shown by |")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^-|].*? \| (.*) \|$", promises, flags=re.MULTILINE)[1:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/\S+)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
                name
            )
