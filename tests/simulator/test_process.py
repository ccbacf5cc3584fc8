"""The tools as processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running(module: str, port_file: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a module until its port is known; stop it at the end."""
    command = [sys.executable, "-m", module, "--port", "0", "--port-file", str(port_file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("module", ["bench.simulator", "bench.sink"])
def test_a_server_tells_its_port_and_stops_on_sigterm(module: str, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with running(module, port_file) as (process, port):
        stats = httpx.get(f"http://127.0.0.1:{port}/sim/stats", timeout=60).json()
        assert stats["arrivals"] == 0
        assert int(port_file.read_text()) == port
        taken = subprocess.run(
            [sys.executable, "-m", module, "--port", str(port)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert taken.returncode == 1
        assert taken.stderr.startswith("Cannot listen on 127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_the_load_prints_its_figures(tmp_path: Path) -> None:
    with running("bench.simulator", tmp_path / "port") as (_, port):
        url = f"http://127.0.0.1:{port}/v1/embeddings"
        command = [sys.executable, "-m", "bench.load", "--url", url, "--body", '{"input":"a"}', "--total", "50"]
        done = subprocess.run([*command, "--connections", "4"], cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["statuses"] == {"200": 50}
    assert figures["errors"] == {}
