"""Roles as real processes, to be killed, frozen and started again by the tests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.settings.loader import environment
from core.settings.models import Settings
from tests.support.forking import ForkedProcess
from tests.support.freezing import freeze

REVIVE_S = 0.2


def settings_for(kafka: str, folder: Path, prefix: str, **changes: object) -> tuple[Settings, dict[str, str]]:
    """Return settings on a topic prefix of their own, and the environment that gives a process the same.

    `changes` are dotted names with __ for the dot: streams__lease_s=2. Two partitions are enough to be several; a test
    that is about many asks for them.
    """
    dotted: dict[str, object] = {
        "data_dir": str(folder),
        "kafka.bootstrap": kafka,
        "kafka.topic_prefix": prefix,
        "kafka.partitions": 2,
        "kafka.work_partitions": 2,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    nested: dict[str, object] = {}
    for name, value in dotted.items():
        *section, field = name.split(".")
        target = nested
        for part in section:
            target = target.setdefault(part, {})  # type: ignore[assignment]
        target[field] = value
    return Settings.model_validate(nested), environment(dotted)


class Role:
    """One role process; its log is kept for the message of a failed test."""

    def __init__(self, *arguments: str, env: Mapping[str, str], log: Path) -> None:
        self._arguments = arguments
        self._env = {**{k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}, **env}
        self._log = log
        self._lock = threading.Lock()
        self._ended = False
        """By us: nobody starts it again but who ended it."""
        self.kept = True
        """Whether `running` starts it again when it ends itself, as every supervisor does.

        A scheduler that was not run for longer than its Kafka session ends itself; on a machine that stands still for
        seconds that happens in any test.
        """
        self.process: ForkedProcess | None = None

    def start(self) -> None:
        """Start it, again after its death too; nothing happens when it runs."""
        with self._lock:
            self._ended = False
            if self.process is None or self.process.poll() is not None:
                self._spawn()

    def _spawn(self) -> None:
        self.process = ForkedProcess(self._arguments, env=self._env, log=self._log)

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """Return what it has printed."""
        return self._log.read_text(errors="replace")

    def send(self, what: signal.Signals) -> None:
        """Send a signal."""
        if what is signal.SIGSTOP:
            freeze(self.pid)
        else:
            os.kill(self.pid, what)

    def kill(self) -> None:
        """Kill -9 and reap."""
        with self._lock:
            assert self.process is not None
            self._ended = True
            self.process.kill()
            self.process.wait()

    def stop(self, *, within_s: float = 60) -> int:
        """Stop with SIGTERM and return the exit code."""
        with self._lock:
            assert self.process is not None
            self._ended = True
            self.process.terminate()
        return self.process.wait(within_s)

    def revive(self, over: threading.Event) -> None:
        """Start it again whenever it has ended itself with an error, until told that it is over."""
        while not over.wait(REVIVE_S):
            with self._lock:
                if self.kept and not self._ended and self.process is not None and self.process.poll() == 1:
                    self._spawn()


@contextmanager
def running(*arguments: str, env: Mapping[str, str], log: Path) -> Iterator[Role]:
    """Run a role for the length of a block."""
    role, over = Role(*arguments, env=env, log=log), threading.Event()
    role.start()
    keeper = threading.Thread(target=role.revive, args=(over,), daemon=True)
    keeper.start()
    try:
        yield role
    finally:
        over.set()
        keeper.join()
        if role.process is not None and role.process.poll() is None:
            role.process.send_signal(signal.SIGCONT)
            role.kill()
