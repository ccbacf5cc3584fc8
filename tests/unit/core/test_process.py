from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ROLE = """
import asyncio, gc, sys
from core.settings.loader import load_settings
from core.errors import ConfigError, Unavailable
from core.process import run_role

async def waits(stop):
    print("started", type(asyncio.get_running_loop()).__module__, flush=True)
    await stop.wait()

async def hangs(stop):
    await waits(stop)
    print("stopping", flush=True)
    await asyncio.sleep(60)

async def wrong(stop):
    raise ConfigError("the port 80 cannot be opened: key sk-secret-1")

async def two_wrong(stop):
    async with asyncio.TaskGroup() as group:
        group.create_task(fails("one"))
        group.create_task(fails("two"))

async def fails(name):
    raise Unavailable(name)

async def broken(stop):
    raise ZeroDivisionError("sk-secret-1")

async def ends(stop):
    pass

async def counts(stop):
    print("frozen", gc.get_freeze_count(), flush=True)

settings = load_settings(environ={"HEADRACE_AUTH_API_KEYS": "sk-secret-1", "HEADRACE_LOG_FORMAT": "json"})
sys.exit(run_role("tester", settings, globals()[sys.argv[1]]))
"""


@contextmanager
def role(main: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", ROLE, main],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(start)
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_role_cleanly(number: signal.Signals) -> None:
    with role("waits") as process:
        assert "uvloop" in read(process, "started")
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
    found = json.loads(errors)
    assert (found["event"], found["role"], found["signal"]) == ("role_stopping", "tester", number.name)


def test_the_same_signal_again_ends_it_at_once() -> None:
    with role("hangs") as process:
        read(process, "started")
        process.send_signal(signal.SIGINT)
        read(process, "stopping")
        process.send_signal(signal.SIGTERM)  # the supervisor's own, after a Ctrl-C: no second thought
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 128 + signal.SIGINT


def test_kubernetes_service_variables_are_logged_in_one_line() -> None:
    url = "tcp://10.96.7.4:80"
    made = {"HEADRACE_PORT": url, "HEADRACE_SERVICE_HOST": "10.96.7.4", "HEADRACE_INGRESS_PORT": url}
    with role("ends", **made) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
    found = json.loads(errors)
    assert (found["event"], found["level"]) == ("service_variables", "info")
    assert found["message"].endswith(": HEADRACE_INGRESS_PORT, HEADRACE_PORT, HEADRACE_SERVICE_HOST")


@pytest.mark.parametrize(("main", "sentences"), [("wrong", 1), ("two_wrong", 2)])
def test_our_errors_are_a_sentence_and_exit_code_1(main: str, sentences: int) -> None:
    with role(main) as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["event"] for line in lines] == ["role_failed"] * sentences
    assert not any("exception" in line for line in lines)
    assert "sk-secret" not in errors


def test_an_unexpected_error_tells_its_place() -> None:
    with role("broken") as process:
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
    found = json.loads(errors)
    assert found["event"] == "role_crashed"
    assert "ZeroDivisionError: ***" in found["exception"]


def test_a_role_that_ends_by_itself_succeeds() -> None:
    with role("ends") as process:
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0


def test_what_was_imported_is_left_out_of_every_collection() -> None:
    with role("counts") as process:
        frozen = int(read(process, "frozen").split()[-1])
        assert frozen > 10_000
        assert process.wait(30) == 0
