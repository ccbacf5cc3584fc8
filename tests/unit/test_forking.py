"""The processes that tests start their roles as behave like any other process."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.forking import ForkedProcess
from tests.support.ports import free_port
from tests.support.waiting import eventually, is_alive


def test_exit_code_and_output_are_those_of_the_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ForkedProcess(["config", "print"], env={"HEADRACE_KAFKA_BOOTSTRAP": "elsewhere:1"}, log=log)
    assert process.wait(60) == process.poll() == 0
    assert 'bootstrap = "elsewhere:1"' in log.read_text()
    process.kill()  # ended already: nothing happens
    wrong = ForkedProcess(["no-such-command"], env={}, log=log)
    assert wrong.wait(60) == 2
    assert "no-such-command" in log.read_text()


def test_signals_reach_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["ingress", "--port", str(free_port())]
    process = ForkedProcess(command, env={"HEADRACE_DATA_DIR": str(tmp_path)}, log=log)
    eventually(lambda: "listening on" in log.read_text(), what="a running role")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert not is_alive(process.pid)
