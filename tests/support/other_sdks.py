"""The OpenAI SDKs of other languages, each with a small program that streams a chat: made on first use, then cached."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from compose.local.cache import cache_dir, cache_lock

SOURCES = Path(__file__).parents[1] / "api" / "clients"
GO_VERSIONS = ("v3.42.0", "v3.43.0")
"""The last one that takes an empty line after a comment for an event, and the first that does not."""
MAKE_S = 900
"""A build of openai-go takes a minute of CPU, and the machine may have other work."""

Program = Sequence[str]
"""Takes BASE_URL KEY MODEL, and prints chunks, text and error as JSON."""


def go_program(version: str) -> Program:
    """Return the program with a version of openai-go; skips the test where there is no Go."""
    go = _tool("go")

    def build(folder: Path) -> None:
        module = folder / "go.mod"
        module.write_text(module.read_text().replace("VERSION", version))
        _fetch([go, "mod", "download"], folder)
        _run([go, "build", "-trimpath", "-buildvcs=false", "-o", "streamed", "."], folder)

    return [str(_made(f"openai-go-{version}", SOURCES / "go", build) / "streamed")]


def node_program() -> Program:
    """Return the program with openai-node; skips the test where there is no Node."""
    node, npm = _tool("node"), _tool("npm")

    def install(folder: Path) -> None:
        _fetch([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    return [node, str(_made("openai-node", SOURCES / "node", install) / "main.mjs")]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def _made(name: str, source: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder that is whole or not there, named by what it is made of."""
    files = sorted(path for path in source.iterdir() if path.is_file())
    digest = sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]
    folder = cache_dir() / f"{name}-{digest}"
    with cache_lock(name):
        if not folder.exists():
            with TemporaryDirectory(dir=folder.parent) as made:
                work = Path(made) / "work"
                work.mkdir()
                for path in files:
                    shutil.copy(path, work)
                make(work)
                os.replace(work, folder)  # noqa: PTH105 - in one step
    return folder


def _fetch(command: Sequence[str], folder: Path) -> None:
    """Fetch packages; where there is no registry of that language the test is skipped."""
    done = _done(command, folder)
    if done.returncode:
        pytest.skip(f"{' '.join(command[:3])} does not work here: {done.stderr.strip()[-300:]}")


def _run(command: Sequence[str], folder: Path) -> None:
    done = _done(command, folder)
    assert done.returncode == 0, done.stderr


def _done(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=MAKE_S)
