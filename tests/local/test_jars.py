from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from compose.local import jars
from compose.local.errors import LocalStackError

NAME = "org/example/thing/1.0/thing-1.0.jar"
CONTENT = b"a jar"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Repository:
    """Stands where jgo's MavenContext stands, and writes what it is told to."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self.folder = folder
        self.content = content
        self.asked: list[str] = []

    def project(self, group: str, artifact: str) -> SimpleNamespace:
        return SimpleNamespace(
            at_version=lambda version: SimpleNamespace(
                artifact=lambda: SimpleNamespace(resolve=lambda: self.write(group, artifact, version))
            )
        )

    def write(self, group: str, artifact: str, version: str) -> Path:
        self.asked.append(f"{group}:{artifact}:{version}")
        path = self.folder / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.jar"
        assert not path.exists(), "jgo takes a file that is there as it is"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)
        return path


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Repository]:
    """Pin one small jar in an empty cache, to be fetched from a repository with the given content."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jars, "pinned", lambda: {NAME: DIGEST})

    def with_content(content: bytes) -> Repository:
        repository = Repository(tmp_path / "headrace" / "repository", content)
        monkeypatch.setattr(jars, "_context", lambda _: repository)
        return repository

    return with_content


def test_the_list_pins_one_kafka_and_a_way_to_log() -> None:
    pinned = jars.pinned()
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in pinned.values())
    assert all(re.fullmatch(r"[\w./+-]+\.jar", name) for name in pinned)
    for root in jars.ROOTS:
        group, artifact, version = root.split(":")
        assert f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar" in pinned
    assert {Path(name).parts[-2] for name in pinned if name.startswith("org/apache/kafka/")} == {jars.KAFKA_VERSION}
    assert {Path(name).parts[-2] for name in pinned if "/log4j/" in name} == {jars.ROOTS[1].rpartition(":")[2]}


def test_every_jar_in_use_has_the_pinned_sum() -> None:
    pinned = jars.pinned()
    found = jars.class_path()
    assert len(found) == len(pinned)
    for jar in found:
        name = next(name for name in pinned if jar.as_posix().endswith(name))
        assert hashlib.sha256(jar.read_bytes()).hexdigest() == pinned[name], name


def test_fetches_once_then_looks_only_at_sizes_and_times(serve: Callable[[bytes], Repository]) -> None:
    repository = serve(CONTENT)
    said: list[str] = []
    first = jars.class_path(said.append)
    assert [jar.read_bytes() for jar in first] == [CONTENT]
    assert jars.class_path() == first
    assert repository.asked == ["org.example:thing:1.0"]
    assert said[0].startswith("fetching Apache Kafka")


def test_a_jar_that_was_cut_is_fetched_again(serve: Callable[[bytes], Repository]) -> None:
    repository = serve(CONTENT)
    (jar,) = jars.class_path()
    jar.write_bytes(CONTENT[:2])
    assert jars.class_path()[0].read_bytes() == CONTENT
    assert len(repository.asked) == 2


def test_a_jar_with_another_sum_is_refused_and_deleted(serve: Callable[[bytes], Repository]) -> None:
    repository = serve(b"something else")
    with pytest.raises(LocalStackError, match=rf"thing-1.0.jar has SHA-256 \w+, expected {DIGEST}"):
        jars.class_path()
    assert not (repository.folder / NAME).exists()


def test_no_network_is_one_sentence(serve: Callable[[bytes], Repository], monkeypatch: pytest.MonkeyPatch) -> None:
    repository = serve(CONTENT)

    def refuse(*_: str) -> Path:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(repository, "write", refuse)
    with pytest.raises(LocalStackError, match=r"cannot fetch thing-1\.0\.jar .*no route.*--kafka HOST:PORT"):
        jars.class_path()
