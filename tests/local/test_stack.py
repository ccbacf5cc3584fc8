from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from compose.local.errors import LocalStackError
from compose.local.ports import FIRST_PORT, LAST_PORT
from compose.local.stack import StackFolder


def test_one_stack_owns_a_folder(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "data")
    with folder.owned():
        folder.publish({"url": "http://x"})
        with pytest.raises(LocalStackError, match=r"in use by another stack.*--data-dir"):
            own(StackFolder(folder.path))
        assert json.loads((folder.path / "stack.json").read_text()) == {"url": "http://x"}
    assert not (folder.path / "stack.json").exists(), "nobody reads of a stack that is stopped"
    with folder.owned():
        assert not (folder.path / "stack.json").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalStackError, match=r"cannot use the data directory .*/file/data: .*; choose a writable one"):
        own(StackFolder(tmp_path / "file" / "data"))


def own(folder: StackFolder) -> None:
    with folder.owned():
        pytest.fail("it was owned")


def test_ports_are_reused_while_they_are_free(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path)
    first = folder.ports({"broker": 0, "controller": 0, "model": 0})
    assert len(set(first.values())) == len(first)
    assert all(FIRST_PORT <= port < LAST_PORT for port in first.values())
    assert StackFolder(tmp_path).ports({"broker": 0}) == {"broker": first["broker"]}
    with socket.create_server(("127.0.0.1", first["broker"])):
        moved = folder.ports({"broker": 0, "model": 0})
    assert moved["broker"] != first["broker"]
    assert moved["model"] == first["model"], "not asked for the last time, but remembered"


def test_a_port_that_was_asked_for_must_be_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"port {port} for the broker is in use: set local.broker_port"):
            StackFolder(tmp_path).ports({"broker": port})


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"broker": "x"}'])
def test_a_damaged_memory_of_ports_costs_nothing_else(tmp_path: Path, damage: str) -> None:
    (tmp_path / "ports.json").write_text(damage)
    assert StackFolder(tmp_path).ports({"broker": 0})["broker"] >= FIRST_PORT
