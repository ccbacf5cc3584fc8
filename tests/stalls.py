"""Run a command on a machine that stands still now and then: all its processes are frozen for some seconds, then go on.

    python -m tests.stalls [--every 45] [--seconds 5] [--busy N] -- make test

`--busy N` keeps N processes beside it at work, as other people's would be. What the command's own tests have frozen
stays frozen. The exit code is the command's.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil


def main() -> int:
    """Run the command to its end."""
    parser = argparse.ArgumentParser(prog="python -m tests.stalls", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--every", type=float, default=45, metavar="S", help="a stall about every so many seconds")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="how long one lasts")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="how many processes work beside it")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    with _busy(arguments.busy):
        process = subprocess.Popen(arguments.command)
        stalls = 0
        while not _ends(process, within_s=arguments.every * random.uniform(0.5, 1.5)):
            _stall(psutil.Process(process.pid), arguments.seconds)
            stalls += 1
    print(f"the processes stood still {stalls} times for {arguments.seconds:g} s", file=sys.stderr)
    return process.returncode


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    workers = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()


def _spin() -> None:
    """Use a core for as long as the parent lives."""
    parent = os.getppid()
    while os.getppid() == parent:
        sum(range(1_000_000))


def _ends(process: subprocess.Popen[bytes], *, within_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(within_s)
    return process.returncode is not None


def _stall(root: psutil.Process, seconds: float) -> None:
    """Freeze all that runs of a tree, and wake just that again."""
    frozen: list[psutil.Process] = []
    try:
        # The tree grows until all of it is frozen.
        while running := [one for one in [root, *root.children(recursive=True)] if _runs(one)]:
            frozen += [one for one in running if _signalled(one, signal.SIGSTOP)]
        time.sleep(seconds)
    finally:
        for one in reversed(frozen):
            _signalled(one, signal.SIGCONT)


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def _signalled(process: psutil.Process, what: signal.Signals) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(what)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
