"""Every command of the README and the pages, run page by page against one real stack with the real model.

A block marked `sh` or `python` is run, and what the page shows after it is compared with what comes back. One marked
`bash` needs a cluster or another machine: it is not run, and its `headrace` lines are parsed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace.docs.http_api import task_members
from tests.support.cli import parsed
from tests.support.json_shape import ANYTHING, assert_alike
from tests.support.markdown import Block, blocks, prose
from tests.support.ports import free_port
from tests.support.stack import KEY, Stack, stack
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
ELSEWHERE = {
    "docs/how-to/produce-to-kafka.md": "tests/integration/site/test_direct_producers.py",
    "docs/how-to/webhooks.md": "tests/unit/dispatcher/webhooks/test_signature.py",
    "docs/reference/analytics-fields.md": "tests/integration/test_analytics.py",
}
"""Page → the test that runs its Python, or does the same, against other model servers."""
TASK = re.compile(r"TASK-[0-9A-Z-]+")
PORT = re.compile(r"\b808\d\b")
COMMAND_S = 180


class Step(NamedTuple):
    """A block to run, and the blocks of its section that show what comes back."""

    command: str
    language: str
    line: int
    shown: list[Block]

    @property
    def serves(self) -> bool:
        """Return whether it is a server, which does not end by itself."""
        return "serve_forever" in self.command or "headrace ingress" in self.command


def steps(name: str) -> list[Step]:
    """Read a page as a list of steps."""
    found: list[Step] = []
    heading = None
    for block in blocks(PAGES[name]):
        before = PAGES[name].splitlines()[: block.line]
        section = next(line for line in reversed(before) if line.startswith("#"))
        if block.language == "sh" or (block.language == "python" and name not in ELSEWHERE):
            found.append(Step(block.text.strip(), block.language, block.line, []))
            heading = section
        elif section == heading and block.language in ("json", "text"):
            found[-1].shown.append(block)
    return [step for step in found if not step.command.startswith("make ")]


RUN = [name for name in PAGES if steps(name)]


class Terminal:
    """A shell in a folder of its own that looks like the checkout after `make run`."""

    def __init__(self, running: Stack, folder: Path) -> None:
        self.running = running
        self.folder = folder
        self.ports = {"8080": running.url.rpartition(":")[2]}
        self.ids: dict[str, str] = {}
        self.servers: list[subprocess.Popen[bytes]] = []
        folder.mkdir()
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / ".headrace").symlink_to(running.folder)
        # The status goes to stderr, so that stdout is what a reader of the page sees.
        (folder / ".curlrc").write_text('write-out = "%{stderr}%{http_code}"\n')
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "CURL_HOME": str(folder), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        self.env = {**inherited, **own, "HEADRACE_URL": running.url}

    def localised(self, text: str) -> str:
        """Replace the page's ports and ids by those of this run."""
        text = PORT.sub(lambda match: self.ports.setdefault(match[0], str(free_port())), text)
        return TASK.sub(lambda match: self.ids.get(match[0], match[0]), text)

    def run(self, step: Step) -> tuple[str, str]:
        """Run a block; return stdout and stderr."""
        command = self.localised(step.command)
        shell = ["bash", "-euo", "pipefail", "-c", command]
        argv, env = shell, self.env
        if step.language == "python":
            argv, env = [sys.executable, "-c", command], {**self.env, "HEADRACE_KAFKA_BOOTSTRAP": self.running.kafka}
        ended = subprocess.run(
            argv, env=env, cwd=self.folder, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return ended.stdout, ended.stderr

    def serve(self, step: Step) -> None:
        """Start a block that does not end, and wait until its server can be used."""
        command = self.localised(step.command)
        [port] = {self.ports[name] for name in PORT.findall(step.command)}
        with self.output.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", command],
                env=self.env,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.servers.append(process)
        ready = _is_ready if "headrace ingress" in command else _listens
        eventually(lambda: ready(int(port)), within_s=COMMAND_S, what=f"a server on port {port}")

    def received(self) -> dict[str, Any]:
        """Wait for what the page's receiver prints."""
        eventually(lambda: self.output.read_text().endswith("\n"), within_s=COMMAND_S, what="a webhook")
        found: dict[str, Any] = json.loads(self.output.read_text())
        return found

    def close(self) -> None:
        """End the servers that the page has started."""
        for process in self.servers:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def output(self) -> Path:
        """Return the file with what the server prints."""
        return self.folder / "server.txt"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run one stack for all pages; a task has ended in it."""
    folder = tmp_path_factory.mktemp("docs")
    with stack(folder / ".headrace", direct__reply_topics="replies.*") as found:
        data = {"model": "smollm2", "prompt": "Hello", "max_tokens": 1}
        task = {"queue": "demo", "endpoint": "/v1/completions", "response_mode": "blocking", "data": data}
        submit = [
            "curl",
            "-sf",
            f"{found.url}/v1/queue/put",
            "-H",
            f"Authorization: Bearer {KEY}",
            "-d",
            json.dumps(task),
        ]
        subprocess.run(submit, check=True, capture_output=True, timeout=COMMAND_S)
        yield found


@contextmanager
def terminal(running: Stack, folder: Path) -> Iterator[Terminal]:
    """Open a terminal for one page."""
    opened = Terminal(running, folder)
    try:
        yield opened
    finally:
        opened.close()


def check(terminal: Terminal, step: Step) -> None:
    """Run one block and compare what comes back with what the page shows."""
    if step.serves:
        terminal.serve(step)
        return
    out, err = terminal.run(step)
    if not step.shown:
        # Nothing is shown of a response that is written to a file; it has to be a good one.
        assert not step.command.startswith("curl") or re.fullmatch(r"2\d\d", err), err
        return
    first, *more = step.shown
    if step.command.startswith("curl"):
        check_response(first, out, status=err)
    else:
        assert out.strip() == first.text.strip()
    remember(terminal, first.text, out)
    for block in more:
        assert_alike(json.loads(block.text), terminal.received(), at="webhook")


def check_response(shown: Block, found: str, *, status: str) -> None:
    """Compare a response over HTTP: JSON, a stream, or a head and a body."""
    if shown.text.startswith("HTTP/"):
        shown_head, _, shown_body = shown.text.partition("\n\n")
        head, _, body = found.replace("\r\n", "\n").partition("\n\n")
        assert head.splitlines()[0] == shown_head.splitlines()[0]
        assert header_names(head) == header_names(shown_head)
        assert status in head.splitlines()[0]
        assert_alike(json.loads(shown_body), json.loads(body))
        return
    assert status == "200"
    if shown.text.startswith("data:"):
        check_stream(shown.text, found)
    else:
        assert_alike(json.loads(shown.text), json.loads(found))


def header_names(head: str) -> set[str]:
    return {line.partition(":")[0] for line in head.splitlines()[1:]}


def check_stream(shown: str, found: str) -> None:
    """Compare the frames before the mark for what is left out, and those after it."""
    events = "\n".join(line for line in found.splitlines() if not line.startswith(":"))
    frames = [frame.removeprefix("data: ") for frame in events.strip().split("\n\n")]
    before, after = (part.split("data: ")[1:] for part in shown.split(f"{ANYTHING}\n"))
    assert len(frames) > len(before) + len(after)
    for one, other in [*zip(before, frames, strict=False), *zip(after[::-1], frames[::-1], strict=False)]:
        if one.strip() == "[DONE]":
            assert other == one.strip()
        else:
            assert_alike(json.loads(one), json.loads(other), at="frame")


def remember(terminal: Terminal, shown: str, found: str) -> None:
    """Note which id of this run stands for the one that the page shows."""
    if (one := TASK.search(shown)) and (other := TASK.search(found)):
        terminal.ids.setdefault(one[0], other[0])


def wait_for_the_end(terminal: Terminal, step: Step) -> None:
    """Wait until the task is over that a step shows as such: a reader's fingers are slower than a test."""
    if any('"status": "succeeded"' in block.text for block in step.shown):
        eventually(lambda: '"status":"succeeded"' in terminal.run(step)[0], within_s=COMMAND_S, what="the task's end")


@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_page_do_what_it_shows(name: str, running: Stack, tmp_path: Path) -> None:
    with terminal(running, tmp_path / "checkout") as opened:
        for step in steps(name):
            wait_for_the_end(opened, step)
            try:
                check(opened, step)
            except AssertionError as error:
                raise AssertionError(f"{name} line {step.line}: {error}\n{running.logs()}") from error


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_ready_line_is_the_one_that_is_printed(name: str, running: Stack) -> None:
    shown = next(block.text for block in blocks(PAGES[name]) if block.text.startswith("headrace is ready"))
    shown = shown.strip().replace("8080", running.url.rpartition(":")[2])
    log = running.folder.parent / f"{running.folder.name}-up.log"
    pattern = re.sub(r"\d+\\\.\d+ s", r"\\d+\\.\\d+ s", re.escape(shown).replace("\\ ", " "))
    eventually(lambda: re.search(pattern, log.read_text()), what="the ready line")


def test_the_pages_show_each_response_mode_and_api() -> None:
    commands = [step.command for name in RUN for step in steps(name)]
    for mode in ("blocking", "streaming", "callback"):
        assert any(f'"response_mode": "{mode}"' in command for command in commands), mode
    for path in ("/v1/queue/take", "/v1/chat/completions", "/v1/batches", "/completion-messages", "headrace.tasks."):
        assert any(path in command for command in commands), path


def test_the_tests_of_other_examples_exist() -> None:
    for name, test in ELSEWHERE.items():
        assert any(block.language == "python" for block in blocks(PAGES[name])), name
        assert (ROOT / test).is_file(), test


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = "".join(PAGES.values()) + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE))
    assert {"run", "test", "setup", "lint", "bench"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize("name", PAGES)
def test_commands_that_are_not_run_can_be_parsed(name: str) -> None:
    text = re.sub(r"^\|.*$", "", prose(PAGES[name]), flags=re.MULTILINE)
    lines = [f"headrace {line}" for line in re.findall(r"`headrace ([^`]*--[^`]*)`", text)]
    for block in blocks(PAGES[name]):
        lines += block.text.replace("\\\n", "").splitlines() if block.language == "bash" else []
    for line in lines:
        # What a reader fills in: a level, a number, one of two commands.
        filled = re.sub(r"\bLEVEL\b", "online", re.sub(r"\b[NS]\b", "1", line.replace("register|set", "set")))
        words = shlex.split(filled, comments=True)
        if words and words[0] == "headrace":
            parsed(words[1:])


def test_the_members_of_a_task_are_those_of_the_api() -> None:
    table = PAGES["docs/reference/http-api.md"].partition("## Members of a task")[2].partition("\n\n`X-")[0]
    rows = {name: needed == "yes" for name, needed in re.findall(r"^\| `(\w+)` \| (yes|no) \|", table, re.MULTILINE)}
    assert rows == task_members()


def test_the_packages_are_those_of_the_project() -> None:
    table = PAGES["docs/contributing/code-tour.md"].partition("| package |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert set(named) == {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "tests"}


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].encode()) <= 12_000
