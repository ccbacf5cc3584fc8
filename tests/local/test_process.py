from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compose.local import process
from tests.support.waiting import eventually, is_alive

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

PARENT = """
import subprocess, sys, time
from compose.local.process import ending_with_parent
command = ending_with_parent([sys.executable, "-c", "import time; time.sleep(600)"])
child = subprocess.Popen(command, start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel kills a child with its parent")
def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not is_alive(child), what="the end of the child")


def test_output_goes_to_the_log_and_a_large_log_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "logs" / "child.log"
    for text in ("first", "second"):
        process.spawn([sys.executable, "-c", f"print('{text}')"], log=log).wait()
    assert process.tail(log) == ["first", "second"]

    monkeypatch.setattr(process, "LOG_LIMIT_BYTES", 3)
    process.spawn([sys.executable, "-c", "print('third')"], log=log).wait()
    assert process.tail(log) == ["third"]
    assert process.tail(log.with_name("child.log.1")) == ["first", "second"]


def test_a_signal_reaches_what_the_child_started(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = f"import subprocess, sys; p = subprocess.Popen({SLEEP!r}); print(p.pid, flush=True); p.wait()"
    child = process.spawn([sys.executable, "-c", code], log=log)
    eventually(lambda: process.tail(log), what="the pid of the grandchild")
    grandchild = int(process.tail(log)[0])
    process.signal_group(child, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    eventually(lambda: not is_alive(grandchild), what="the end of the grandchild")
    process.signal_group(child, signal.SIGKILL)  # ended long ago: nothing happens


def test_a_child_is_out_of_reach_of_the_terminal(tmp_path: Path) -> None:
    child = process.spawn(SLEEP, log=tmp_path / "child.log")
    try:
        eventually(lambda: os.getpgid(child.pid) == child.pid, what="a group of its own")
    finally:
        child.kill()
        child.wait()


def test_the_tail_of_nothing_is_empty(tmp_path: Path) -> None:
    assert process.tail(tmp_path / "none.log") == []
