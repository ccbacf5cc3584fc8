"""Prepare files once per machine that make broker starts fast.

- The feature levels of a new cluster, written by Kafka's own StorageTool: later folders need no JVM for the format.
- The JVM's ahead-of-time cache (JEP 483, 514, 515), from one training run. Measured on 2 cores: a broker answers after
  0.9 s with it and 1.8 s without; creating it takes 5 s.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compose.local.broker_config import Node, format_once, server_properties, write_properties
from compose.local.cache import cache_dir, cache_lock
from compose.local.errors import LocalStackError
from compose.local.jars import KAFKA_VERSION, Progress, class_path
from compose.local.java import fingerprint, java_command
from compose.local.ports import LOOPBACK, free_port
from compose.local.probe import brokers_alive
from compose.local.process import signal_group, spawn, tail

logger = logging.getLogger(__name__)

STEP_LIMIT_S = 120  # for any one step below; seconds on an idle machine
MAX_CACHES = 3  # 70 MB each, one per virtual environment that runs brokers
HEAP_MB = 256


@dataclass(frozen=True, kw_only=True)
class AotCache:
    """Files for a broker start; `aot_cache` is None if it could not be created."""

    jars: tuple[Path, ...]
    checkpoint: Path
    aot_cache: Path | None


def prepare(progress: Progress = lambda _: None) -> AotCache:
    """Download and create missing files."""
    jars = tuple(class_path(progress))
    checkpoint = cache_dir() / f"kafka-{KAFKA_VERSION}.bootstrap.checkpoint"
    cache = cache_dir() / f"kafka-{KAFKA_VERSION}-{fingerprint(jars)}.aot"
    if not (checkpoint.exists() and cache.exists()):
        progress("preparing the broker for quick starts, once")
        with cache_lock("prepare"):
            if not checkpoint.exists():
                _make_checkpoint(jars, checkpoint)
            if not cache.exists():
                _make_cache(jars, cache, checkpoint)
    # An empty file records a failed attempt, so that not every start repeats it.
    return AotCache(jars=jars, checkpoint=checkpoint, aot_cache=cache if cache.stat().st_size else None)


@contextlib.contextmanager
def _prepare_scratch_node() -> Iterator[tuple[Path, Path, Node]]:
    """Prepare a temporary node inside the cache folder, so that results can be moved out of it."""
    for left in cache_dir().glob("training-*"):  # left by a killed run; under the lock there is no other
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="training-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        node = Node(id=1, port=free_port(), controller_port=free_port())
        properties = folder / "server.properties"
        settings = server_properties(node, [node], logs=folder / "data", max_message_bytes=1_048_576, extra={})
        write_properties(properties, settings)
        yield folder, properties, node


def _make_checkpoint(jars: Sequence[Path], checkpoint: Path) -> None:
    tool = ("kafka.tools.StorageTool", "format", "--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config")
    with _prepare_scratch_node() as (folder, properties, _):
        log = folder / "format.log"
        command = java_command(jars, *tool, str(properties), heap_mb=HEAP_MB, log=log)
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=STEP_LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", None) or b""
            reason = output.decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
            raise LocalStackError(f"Kafka's StorageTool failed on this machine: {reason[0]}") from error
        (folder / "data" / "bootstrap.checkpoint").replace(checkpoint)


def _make_cache(jars: Sequence[Path], cache: Path, checkpoint: Path) -> None:
    """Run a temporary broker until it answers, and stop it cleanly; a failure costs only start time."""
    with _prepare_scratch_node() as (folder, properties, node):
        format_once(folder / "data", node, [node], checkpoint)
        profile, made = folder / "broker.aotconf", folder / "broker.aot"
        try:
            _record(jars, folder, properties, node, profile)
            options = ["-XX:AOTMode=create", f"-XX:AOTConfiguration={profile}", f"-XX:AOTCache={made}"]
            command = java_command(jars, "kafka.Kafka", heap_mb=HEAP_MB, log=folder / "create.log", options=options)
            subprocess.run(command, check=True, capture_output=True, timeout=STEP_LIMIT_S)
        except (OSError, subprocess.SubprocessError, LocalStackError) as error:
            logger.warning("no quick-start cache for the broker: %s", error, extra={"event": "aot_cache_failed"})
            made.write_bytes(b"")
        made.replace(cache)
    for old in sorted(cache_dir().glob("kafka-*.aot"), key=lambda path: path.stat().st_mtime)[:-MAX_CACHES]:
        old.unlink(missing_ok=True)


def _record(jars: Sequence[Path], folder: Path, properties: Path, node: Node, profile: Path) -> None:
    options = ["-XX:AOTMode=record", f"-XX:AOTConfiguration={profile}"]
    log = folder / "broker.log"
    command = java_command(jars, "kafka.Kafka", str(properties), heap_mb=HEAP_MB, log=log, options=options)
    process = spawn(command, log=folder / "output.log")
    give_up = time.monotonic() + STEP_LIMIT_S
    try:
        while not brokers_alive(LOOPBACK, node.port):
            if process.poll() is not None or time.monotonic() > give_up:
                raise LocalStackError("; ".join([*tail(log)[-1:], *tail(folder / "output.log")[-1:]]) or "no answer")
            time.sleep(0.1)
        signal_group(process, signal.SIGTERM)  # the JVM writes the profile at a clean exit
        process.wait(STEP_LIMIT_S)
    finally:
        if process.poll() is None:
            signal_group(process, signal.SIGKILL)
            process.wait()
    if not profile.exists():
        raise LocalStackError("the training run left no profile")
