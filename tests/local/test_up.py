"""`headrace up` as a user meets it when something is wrong: one sentence, exit code, nothing left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from compose.local.stack import StackFolder
from tests.support.ports import free_port

TIME_LIMIT_S = 60


def up(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "headrace.main", "up", *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, f"not one sentence: {result.stderr}"
    assert lines[0].startswith("Error: ")
    assert not [word for word in words if word not in lines[0]], lines[0]


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = up(tmp_path, "--port", str(port))
    assert_refused(result, f"127.0.0.1 port {port}", "in use", "--port")
    assert list(tmp_path.iterdir()) == [], "refused before anything was made"


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    result = up(tmp_path, "--host", "192.0.2.1", "--port", str(free_port()), "--api-key", "k-123456")
    assert_refused(result, "192.0.2.1")


def test_a_host_that_does_not_exist(tmp_path: Path) -> None:
    result = up(tmp_path, "--host", "no-such-host.invalid", "--port", str(free_port()), "--api-key", "k-123456")
    assert_refused(result, "no-such-host.invalid")


def test_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = up(tmp_path, "--port", str(free_port()), "--data-dir", str(tmp_path / "file" / "data"))
    assert_refused(result, str(tmp_path / "file" / "data"), "--data-dir")


def test_data_directory_of_another_stack(tmp_path: Path) -> None:
    with StackFolder(tmp_path / "data").owned():
        result = up(tmp_path, "--port", str(free_port()), "--data-dir", "data")
    assert_refused(result, "in use by another stack", "--data-dir")


@pytest.mark.parametrize(
    ("text", "word"),
    [("[ingress\n", "TOML"), ("[ingress]\nprot = 1\n", "port"), ("[ingress]\nport = 'x'\n", "ingress.port")],
)
def test_broken_config(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "broken.toml").write_text(text)
    assert_refused(up(tmp_path, "--config", "broken.toml"), "broken.toml", word)


def test_another_host_without_a_key(tmp_path: Path) -> None:
    assert_refused(up(tmp_path, "--host", "0.0.0.0", "--port", str(free_port())), "--api-key")


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_refused(up(tmp_path, "--port", str(free_port())), "XDG_CACHE_HOME")


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    assert up(tmp_path, "--port", "many").returncode == 2
    assert up(tmp_path, "--no-such-flag").returncode == 2
