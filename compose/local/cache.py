"""The per-user cache folder: the broker's jars, its format template and its JVM cache."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose.local.errors import LocalStackError


def cache_dir() -> Path:
    """Return the cache folder, created if missing: XDG_CACHE_HOME/headrace or ~/.cache/headrace."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root).expanduser().absolute() / "headrace"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalStackError(
            f"cannot use the cache folder {folder}: {error.strerror}; set XDG_CACHE_HOME to a writable folder"
        ) from error
    return folder


@contextmanager
def cache_lock(name: str) -> Iterator[None]:
    """Lock a name across processes: two first starts must not download or build the same files concurrently."""
    with (cache_dir() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_atomic(path: Path, text: str) -> None:
    """Replace a file atomically, so that neither a reader nor a crash leaves a partial file."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    partial.replace(path)
