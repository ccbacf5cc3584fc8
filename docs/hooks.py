"""Links of the site that lead out of docs/: to the repository, if `repo_url` is set in mkdocs.yml, else plain text.

On the pages themselves they are ordinary relative links, for readers of a checkout; a test checks those.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]\n]*)\]\((\.\.?/[^)\s]+)\)")
FOLDER = "docs"


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Rewrite the links of one page; called by MkDocs."""
    return inside(markdown, page.file.src_uri, repository=config.repo_url or "")


def inside(markdown: str, page: str, *, repository: str) -> str:
    """Return a page, given by its path below docs/, without relative links that leave docs/."""

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(FOLDER, posixpath.dirname(page), match[2].partition("#")[0]))
        if path.startswith(f"{FOLDER}/"):
            return match[0]
        return f"[{match[1]}]({repository.rstrip('/')}/blob/HEAD/{path})" if repository else match[1]

    return _LINK.sub(replace, markdown)
