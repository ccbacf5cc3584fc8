"""Child processes that die with us, each in a group and with a log file of its own."""

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


def tethered(argv: Sequence[str]) -> list[str]:
    """Wrap a command so that the kernel kills it when this process ends, however it ends (Linux only)."""
    script = Path(__file__).with_name("parent_death.py")
    return [sys.executable, "-I", "-S", str(script), str(os.getpid()), *argv]


def child_options(env: Mapping[str, str] | None, output: IO[bytes]) -> dict[str, Any]:
    """Return how a child is started: output to its log, no input, a session of its own.

    The session keeps a terminal's Ctrl-C away from it: the supervisor decides the order of stopping.
    """
    return {
        "stdin": subprocess.DEVNULL,
        "stdout": output,
        "stderr": subprocess.STDOUT,
        "env": None if env is None else dict(env),
        "start_new_session": True,
    }


def open_log(log: Path) -> IO[bytes]:
    """Open a log for appending; one that has grown beyond the limit is moved aside first."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    return log.open("ab")


def spawn(argv: Sequence[str], *, log: Path) -> subprocess.Popen[bytes]:
    """Start a tethered child whose output is appended to the log."""
    with open_log(log) as output:
        return subprocess.Popen(tethered(argv), **child_options(None, output))


async def spawn_async(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
    """Do the same under asyncio."""
    with open_log(log) as output:
        return await asyncio.create_subprocess_exec(*tethered(argv), **child_options(env, output))


def tail(log: Path, *, since: int = 0) -> list[str]:
    """Return the last lines that say something, newest last; none when there is no log.

    Args:
        since: size of the log from which on lines count; 0 when it has been moved aside in between.
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
    """Send a signal to a child and to whatever it started; nothing happens when it has ended."""
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
