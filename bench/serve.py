"""Run one of the raw servers as a process: port file, signals, event loop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import uvloop

from bench.wire import RawServer


class Factory(Protocol):
    """Makes the server to run."""

    def __call__(self, *, host: str, port: int) -> RawServer:
        """Make it, not yet listening."""


def serve(factory: Factory, description: str, arguments: Sequence[str] | None = None) -> None:
    """Listen until SIGTERM or SIGINT; print the port, and write it to a file for scripts that wait for it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--port-file", type=Path, help="written once the port is open")
    options = parser.parse_args(arguments)
    try:
        uvloop.run(_run(factory(host=options.host, port=options.port), options.port_file))
    except OSError as error:
        sys.exit(f"Cannot listen on {options.host}:{options.port}: {error.strerror}. Choose another --port.")


async def _run(server: RawServer, port_file: Path | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        if port_file is not None:
            _write_whole(port_file, f"{server.port}\n")
        await stopped.wait()


def _write_whole(path: Path, text: str) -> None:
    """Write by rename, so that a waiting reader never sees half a number."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
