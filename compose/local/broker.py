"""An Apache Kafka broker as a child process: for `headrace up`, and for tests that start, stop and kill brokers."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from compose.local.aot_cache import prepare
from compose.local.broker_config import Node, format_once, server_properties, write_properties
from compose.local.errors import LocalStackError
from compose.local.jars import Progress
from compose.local.java import java_command
from compose.local.ports import LOOPBACK, free_port
from compose.local.probe import brokers_alive
from compose.local.process import signal_group, spawn, tail

STOP_LIMIT_S = 8.0
POLL_S = 0.05
QUICK_COMPILER = "-XX:TieredStopAtLevel=1"
"""The JVM's second compiler took half the broker's CPU for its first minutes, beside the calls that wait on two cores:
19 ms of each held call against 11 ms, 2.2 s of a start against 1.3 s. Its code saves nothing that 10,000 tasks show."""
EXCEPTION = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error): \S")


class EmbeddedBroker:
    """One KRaft node (broker and controller) on loopback.

    Args:
        data_dir: Holds the records, server.properties and broker.log; survives restarts and is formatted once.
        node: Ports and id; by default node 1 on free ports.
        nodes: All nodes of the cluster, this one included; give every node the same list. Alone by default.
        properties: Entries of server.properties that replace or extend ours.
        jvm_options: More options for the JVM.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        node: Node | None = None,
        nodes: Sequence[Node] = (),
        heap_mb: int = 512,
        max_message_bytes: int = 1_048_576,
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.node = node or Node(id=1, port=free_port(), controller_port=free_port())
        self.nodes = tuple(nodes) or (self.node,)
        self._heap_mb = heap_mb
        self._max_message_bytes = max_message_bytes
        self._properties = dict(properties or {})
        self._jvm_options = tuple(jvm_options)
        self._log_size = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Return HOST:PORT for clients."""
        return f"{LOOPBACK}:{self.node.port}"

    @property
    def log(self) -> Path:
        """What Kafka logs."""
        return self.data_dir / "broker.log"

    @property
    def output(self) -> Path:
        """What the JVM itself prints."""
        return self.data_dir / "output.log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self.is_running() and self._process else None

    def is_running(self) -> bool:
        """Return whether the process is running; it may not answer yet."""
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Return whether the broker answers and may lead partitions."""
        return brokers_alive(LOOPBACK, self.node.port) > 0

    def command(self, progress: Progress = lambda _: None) -> list[str]:
        """Write the files, format the folder once, and return the command line that runs the broker."""
        prepared = prepare(progress)
        records = self.data_dir / "data"
        if "," in str(records):
            raise LocalStackError(f"Kafka cannot store data in {self.data_dir}: choose a path without a comma")
        settings = server_properties(
            self.node, self.nodes, logs=records, max_message_bytes=self._max_message_bytes, extra=self._properties
        )
        try:
            format_once(records, self.node, self.nodes, prepared.checkpoint)
            write_properties(self.data_dir / "server.properties", settings)
        except OSError as error:
            raise LocalStackError(f"cannot write the broker's folder {self.data_dir}: {error.strerror}") from error
        self._log_size = self.log.stat().st_size if self.log.exists() else 0
        cache = [f"-XX:AOTCache={prepared.aot_cache}"] if prepared.aot_cache else []
        options = [QUICK_COMPILER, *self._jvm_options, *cache]
        return java_command(
            prepared.jars,
            "kafka.Kafka",
            str(self.data_dir / "server.properties"),
            heap_mb=self._heap_mb,
            log=self.log,
            options=options,
        )

    def start(self, progress: Progress = lambda _: None) -> None:
        """Start the process without waiting; see `wait_ready`. Does nothing if it is running."""
        if not self.is_running():
            self._process = spawn(self.command(progress), log=self.output)

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until the broker answers; raises with its last error when it exits or the time is up."""
        give_up = time.monotonic() + timeout_s
        while not (self.is_running() and self.is_ready()):
            if not self.is_running():
                raise LocalStackError(f"the broker ended while it started: {self.last_error()}; see {self.log}")
            if time.monotonic() > give_up:
                raise LocalStackError(
                    f"the broker does not answer after {timeout_s:g} s: {self.last_error()}; see {self.log}"
                )
            time.sleep(POLL_S)

    def last_error(self, output: Path | None = None) -> str:
        """Return the most relevant error line of this run, from Kafka's log or the JVM's output."""
        lines = [*tail(self.log, since=self._log_size), *tail(output or self.output)]
        # The last exception of a trace is the cause; the ERROR line above it only reports the exit.
        causes = [line.removeprefix("Caused by: ") for line in lines if EXCEPTION.match(line)]
        errors = [line for line in lines if " ERROR " in line or " FATAL " in line or line.startswith("Error")]
        return next(iter(reversed(causes or errors or lines)), "it printed nothing")

    def stop(self, timeout_s: float = STOP_LIMIT_S) -> None:
        """Stop the broker cleanly, or kill it after the timeout; returns when it has exited."""
        if self._process is None or self._process.poll() is not None:
            return
        signal_group(self._process, signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the broker with SIGKILL; returns when it has exited."""
        if self._process is not None and self._process.poll() is None:
            signal_group(self._process, signal.SIGKILL)
            self._process.wait()
