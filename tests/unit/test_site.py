"""The site that `make docs` builds: its navigation, its links, and the build itself where MkDocs is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MKDOCS = shutil.which("mkdocs", path=str(ROOT / ".venv-docs/bin"))


def inside(text: str, page: str, *, repository: str) -> str:
    """Call the hook of mkdocs.yml, which is no module of a package."""
    spec = spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: str = module.inside(text, page, repository=repository)
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"[\w/-]+\.md$", navigation, flags=re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_links_out_of_the_documentation_become_text_or_lead_to_the_repository() -> None:
    text = "[tour](../contributing/code-tour.md#packages), [policy](../../SECURITY.md), [site](https://example.com)"
    assert inside(text, "operations/security.md", repository="") == text.replace(
        "[policy](../../SECURITY.md)", "policy"
    )
    linked = inside(text, "operations/security.md", repository="https://host/owner/name/")
    assert "[policy](https://host/owner/name/blob/HEAD/SECURITY.md)" in linked


@pytest.mark.skipif(MKDOCS is None, reason="needs the tools of the documentation: make docs installs them")
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    assert MKDOCS is not None
    done = subprocess.run(
        [MKDOCS, "build", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "concepts/glossary/index.html").exists()
