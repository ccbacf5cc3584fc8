"""Everything that the README tells a stranger to type, typed in its order against a real stack with the real model."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingress.api.openapi_document import document
from tests.support.cli import parsed
from tests.support.json_shape import ANYTHING, assert_alike
from tests.support.markdown import Block, blocks, prose
from tests.support.ports import free_port
from tests.support.stack import Stack, stack
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
TASK = re.compile(r"TASK-[0-9A-Z-]+")
RUNNABLE = {"curl", "python3", ".venv/bin/headrace", ".venv/bin/python", "export"}
COMMAND_S = 180


class Step(NamedTuple):
    """A block to type, and the blocks of its section that show what comes back."""

    command: str
    line: int
    shown: list[Block]

    @property
    def program(self) -> str:
        """Return the first word."""
        return self.command.split(maxsplit=1)[0]


def steps() -> list[Step]:
    """Read the page as a list of steps."""
    found: list[Step] = []
    heading = None
    for block in blocks(PAGE):
        here = PAGE.splitlines()[: block.line].copy()
        section = next(line for line in reversed(here) if line.startswith("#"))
        if block.language == "sh":
            found.append(Step(block.text.strip(), block.line, []))
            heading = section
        elif section == heading:
            found[-1].shown.append(block)
    return found


class Terminal:
    """A shell in a folder that looks like the checkout after `make run`."""

    def __init__(self, running: Stack, folder: Path) -> None:
        self.running = running
        self.folder = folder
        self.receiver_port = free_port()
        self.receiver_log = folder / "receiver.txt"
        self.receiver: subprocess.Popen[bytes] | None = None
        self.ids: dict[str, str] = {}
        (folder / ".venv").symlink_to(sys.prefix)
        # The status goes to stderr, so that stdout is what a reader of the page sees.
        (folder / ".curlrc").write_text('write-out = "%{stderr}%{http_code}"\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept |= {"HEADRACE_URL": running.url}
        self.env = {**kept, "PATH": path, "CURL_HOME": str(folder), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}

    def here(self, text: str) -> str:
        """Replace the page's ports and ids by those of this run."""
        text = text.replace("8080", self.running.url.rpartition(":")[2]).replace("8081", str(self.receiver_port))
        return TASK.sub(lambda match: self.ids.get(match[0], match[0]), text)

    def type(self, command: str) -> tuple[str, str]:
        """Run a block; return stdout and stderr."""
        line = ["bash", "-euo", "pipefail", "-c", self.here(command)]
        ended = subprocess.run(
            line, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return ended.stdout, ended.stderr

    def start_receiver(self, command: str) -> None:
        """Run the block of the third terminal, which does not end."""
        arguments = shlex.split(self.here(command))
        with self.receiver_log.open("wb") as log:
            self.receiver = subprocess.Popen(arguments, env=self.env, stdout=log, stderr=subprocess.DEVNULL)
        eventually(self._listens, what="a receiver that listens")

    def received(self) -> dict[str, Any]:
        """Wait for what the receiver prints."""
        eventually(lambda: self.receiver_log.read_text().endswith("\n"), within_s=COMMAND_S, what="a callback")
        found: dict[str, Any] = json.loads(self.receiver_log.read_text())
        return found

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.receiver_port)) == 0


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    folder = tmp_path_factory.mktemp("readme")
    with stack(folder / ".headrace") as running:
        opened = Terminal(running, folder)
        try:
            yield opened
        finally:
            if opened.receiver is not None:
                opened.receiver.kill()
                opened.receiver.wait()


def check(terminal: Terminal, step: Step) -> None:
    """Type one block and compare what comes back with what the page shows."""
    if "serve_forever" in step.command:
        terminal.start_receiver(step.command)
        return
    out, err = terminal.type(step.command)
    if not step.shown:
        return
    first, *more = step.shown
    if step.program == "curl":
        check_answer(first, out, status=err)
    else:
        assert out.strip() == first.text.strip()
    remember(terminal, first.text, out)
    for block in more:
        assert_alike(json.loads(block.text), terminal.received(), at="callback")


def check_answer(shown: Block, found: str, *, status: str) -> None:
    """Compare an answer over HTTP: JSON, a stream, or a head and a body."""
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
    told = "\n".join(line for line in found.splitlines() if not line.startswith(":"))
    frames = [frame.removeprefix("data: ") for frame in told.strip().split("\n\n")]
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


def settled(terminal: Terminal, command: str) -> bool:
    """Tell whether a look at a task shows that it is over."""
    return '"status":"succeeded"' in terminal.type(command)[0]


def test_every_command_answers_as_the_page_shows(terminal: Terminal) -> None:
    ran = []
    for step in steps():
        if step.program not in RUNNABLE:
            continue
        if f"/v1/queue/{next(iter(terminal.ids), 'TASK')}" in step.command:
            # The callback can overtake the row that is looked at; a reader's fingers are slower.
            command = step.command
            eventually(lambda command=command: settled(terminal, command), what="the end of the task")  # type: ignore[misc]
        try:
            check(terminal, step)
        except AssertionError as error:
            raise AssertionError(f"README.md line {step.line}: {error}\n{terminal.running.logs()}") from error
        ran.append(step.command)
    assert sum(command.startswith("curl") for command in ran) >= 6
    assert terminal.ids
    for mode in ("blocking", "streaming", "callback"):
        assert any(f'"response_mode": "{mode}"' in command for command in ran)


def test_the_ready_line_is_the_one_that_is_printed(terminal: Terminal) -> None:
    shown = next(block.text for block in blocks(PAGE) if block.text.startswith("headrace is ready"))
    log = terminal.folder / ".headrace-up.log"
    pattern = re.sub(r"\d+\\\.\d+ s", r"\\d+\\.\\d+ s", re.escape(terminal.here(shown.strip())).replace("\\ ", " "))
    eventually(lambda: re.search(pattern, log.read_text()), what="the ready line")


def test_the_example_in_the_topics_page_reads_a_result(terminal: Terminal) -> None:
    url, key = terminal.running.url, "Authorization: Bearer hr-local"
    data = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    task = json.dumps({"queue": "demo", "endpoint": "/v1/chat/completions", "response_mode": "blocking", "data": data})
    terminal.type(f"curl -s {url}/v1/queue/put -H '{key}' -d '{task}'")
    page = (ROOT / "docs/reference/topics.md").read_text("utf-8")
    example = next(block.text for block in blocks(page) if block.language == "python")
    env = {**terminal.env, "HEADRACE_KAFKA_BOOTSTRAP": terminal.running.kafka}
    command = [sys.executable, "-c", example]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert ended.returncode == 0, ended.stderr
    # The first record can be of any test here; a streamed answer has usage only where its client asked for it.
    assert re.match(r"TASK-\d+-0-[BSC]-\S+ completed 200 (\{|None)", ended.stdout), ended.stdout


def test_every_block_to_type_is_known_to_this_test() -> None:
    for step in steps():
        assert step.program in RUNNABLE | {"make"}, f"line {step.line}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", PAGE, flags=re.MULTILINE))
    assert {"run", "test", "setup", "lint", "bench"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))


def test_commands_in_the_text_can_be_parsed() -> None:
    lines = re.findall(r"`headrace ([^`]*--[^`]*)`", re.sub(r"^\|.*$", "", prose(PAGE), flags=re.MULTILINE))
    assert len(lines) >= 3
    for line in lines:
        parsed(line.split())


def test_the_members_of_a_task_are_those_of_the_api() -> None:
    table = PAGE.partition("| member |")[2].partition("\n\n")[0]
    rows = {name: needed == "yes" for name, needed in re.findall(r"^\| `(\w+)` \| (yes|no) \|", table, re.MULTILINE)}
    schema = document()["components"]["schemas"]["Put"]
    assert rows == {name: name in schema["required"] for name in schema["properties"]}


def test_the_packages_are_those_of_the_project() -> None:
    table = PAGE.partition("| package |")[2]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert set(named) == {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench", "tests"}
