"""Child processes that end with their parent, each in its own process group and with its own log file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

LOG_LIMIT_BYTES = 20_000_000  # a log larger than this at the start of its process is moved to NAME.log.1
TAIL_BYTES = 65_536


def ending_with_parent(argv: Sequence[str]) -> list[str]:
    """Wrap a command so that the kernel kills it when this process ends for any reason (Linux only)."""
    script = Path(__file__).with_name("parent_death.py")
    return [sys.executable, "-I", "-S", str(script), str(os.getpid()), *argv]


def child_options(env: Mapping[str, str] | None, output: IO[bytes]) -> dict[str, Any]:
    """Return the arguments of a child: output to its log, no input, its own session.

    The session protects it from a terminal's Ctrl-C: the supervisor decides the order of stopping.
    """
    return {
        "stdin": subprocess.DEVNULL,
        "stdout": output,
        "stderr": subprocess.STDOUT,
        "env": None if env is None else dict(env),
        "start_new_session": True,
    }


def open_log(log: Path) -> IO[bytes]:
    """Open a log for appending; a log beyond the size limit is rotated first."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    return log.open("ab")


def spawn(argv: Sequence[str], *, log: Path) -> subprocess.Popen[bytes]:
    """Start a child that ends with its parent; its output is appended to the log."""
    with open_log(log) as output:
        return subprocess.Popen(ending_with_parent(argv), **child_options(None, output))


async def spawn_async(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
    """The same for asyncio."""
    with open_log(log) as output:
        return await asyncio.create_subprocess_exec(*ending_with_parent(argv), **child_options(env, output))


def tail(log: Path, *, since: int = 0) -> list[str]:
    """Return the last non-empty lines, newest last; none if there is no log.

    Args:
        since: earlier size of the log, where the relevant lines start; 0 after a rotation.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES, since if since <= size else 0))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def signal_group(process: subprocess.Popen[bytes] | asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the process group of a child; does nothing if it has exited."""
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
