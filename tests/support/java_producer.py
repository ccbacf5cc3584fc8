"""Java's own producer, compiled where there is a compiler and run on the jars of the embedded broker."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from compose.local.jars import class_path
from core.kafka.producer import Record

SOURCE = Path(__file__).with_name("java") / "OutsideProducer.java"
COMPILER = shutil.which("javac")
WITHIN_S = 120

needs_java = pytest.mark.skipif(COMPILER is None, reason="Java's producer: there is no Java compiler (javac) here")


def written_by_java(
    folder: Path, bootstrap: str, tp: TopicPartition, records: Sequence[Record], *, codec: str, end: str
) -> None:
    """Write records in one transaction that ends with `commit` or `abort`."""
    assert COMPILER is not None
    jars = os.pathsep.join(map(str, class_path()))
    if not (folder / "OutsideProducer.class").exists():
        subprocess.run([COMPILER, "-cp", jars, "-d", str(folder), str(SOURCE)], check=True, timeout=WITHIN_S)
    lines = [
        f"{tp.partition} {(one.key or b'').decode()} {_packed(one.value)}"
        + "".join(f" {name} {_packed(content)}" for name, content in one.headers)
        for one in records
    ]
    java = shutil.which("java") or str(Path(COMPILER).with_name("java"))
    command = [java, "-cp", os.pathsep.join((str(folder), jars)), "OutsideProducer", bootstrap, tp.topic, codec]
    command += [f"java-{tp.topic}-{codec}", end]
    ran = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=False, timeout=WITHIN_S)
    assert ran.returncode == 0, ran.stderr


def _packed(content: bytes | None) -> str:
    return base64.b64encode(content or b"").decode()
