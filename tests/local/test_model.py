from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from compose.local.model import NAME, SLOTS
from compose.local.process import spawn, tail
from compose.local.readiness import get
from tests.support.ports import free_port
from tests.support.waiting import eventually, is_alive

TIME_LIMIT_S = 60


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The local model on a port of its own: its process and its base URL."""
    port = free_port()
    process = spawn([sys.executable, "-m", "compose.local.model", "--port", str(port)], log=tmp_path / "model.log")
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: get(f"{url}/health")[0] == 200 or process.poll() is not None, within_s=TIME_LIMIT_S)
        yield process, url
    finally:
        process.kill()
        process.wait()


def chat(url: str, **more: object) -> bytes:
    body = {"model": NAME, "messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 8, **more}
    request = Request(  # noqa: S310 - a URL of our own
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=TIME_LIMIT_S) as response:  # noqa: S310
        return bytes(response.read())


def test_answers_as_an_openai_server(model: tuple[subprocess.Popen[bytes], str], tmp_path: Path) -> None:
    process, url = model
    with ThreadPoolExecutor(SLOTS + 1) as pool:  # one more than run at once: it waits its turn
        answers: list[dict[str, Any]] = [
            json.loads(answer) for answer in pool.map(lambda _: chat(url), range(SLOTS + 1))
        ]
    for answer in answers:
        assert answer["model"] == NAME
        assert answer["choices"][0]["message"]["content"]
        assert 0 < answer["usage"]["completion_tokens"] <= 8
    stream = chat(url, stream=True).decode().split("\n\n")
    assert stream[0].startswith("data: {")
    assert "data: [DONE]" in stream

    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert len(tail(tmp_path / "model.log")) < 5, "it logs next to nothing"


def test_a_port_in_use_is_one_sentence(model: tuple[subprocess.Popen[bytes], str]) -> None:
    port = model[1].rpartition(":")[2]
    command = [sys.executable, "-m", "compose.local.model", "--port", port]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    assert (result.returncode, result.stderr) == (
        1,
        f"Error: cannot listen on port {port}: Address already in use; choose another\n",
    )


def test_ends_with_its_parent() -> None:
    code = (
        "import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-m', 'compose.local.model', '--port', '{free_port()}'], "
        "stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid)"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    eventually(lambda: not is_alive(int(parent.stdout)), what="the end of the model")
