"""The per-user folder of what is fetched or computed once: the broker's jars, its format template and its JVM cache."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose.local.errors import LocalStackError


def cache_dir() -> Path:
    """Return the cache folder, made when missing: XDG_CACHE_HOME/headrace or ~/.cache/headrace."""
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
    """Hold the named lock across processes: two first starts must not fetch or build the same thing at once."""
    with (cache_dir() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_atomic(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader or a crash never sees half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text)
    partial.replace(path)
