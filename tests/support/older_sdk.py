"""The last major version of the OpenAI SDK before the one that is installed, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from compose.local.cache import cache_dir, cache_lock

LOCK = Path(__file__).parents[2] / "requirements" / "openai2.lock"


def older_sdk() -> Path:
    """Return the folder to put on PYTHONPATH; made on first use and kept in the cache, named by its lock."""
    folder = cache_dir() / f"openai2-{sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    with cache_lock("openai2"):
        if not folder.exists():
            with TemporaryDirectory(dir=folder.parent) as made:
                _install(Path(made) / "packages")
                os.replace(Path(made) / "packages", folder)  # noqa: PTH105 - a folder that is whole or not there
    return folder


def _install(target: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--target",
            target,
            "-r",
            LOCK,
        ],
        check=True,
        timeout=120,
    )
