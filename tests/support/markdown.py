"""Markdown pages as data: blocks of code, headings, links."""

from __future__ import annotations

import re
from typing import NamedTuple


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line of the page that it begins in."""

    language: str
    text: str
    line: int


_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks in order."""
    return [Block(match[1], match[2], page.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(page)]


def prose(page: str) -> str:
    """Return the page without its fenced blocks."""
    return _FENCE.sub("", page)


def links(page: str) -> list[str]:
    """Return the targets of links that are no URL."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


def anchors(page: str) -> set[str]:
    """Return what the headings can be linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}
