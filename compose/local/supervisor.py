"""Supervise child processes: start them, restart those that exit, stop all in order.

Independent of Kafka and of Headrace's roles, so that it is tested with commands that only sleep or fail.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose.local.errors import LocalStackError
from compose.local.process import signal_group, spawn_async, tail

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Child:
    """A supervised command. Children of a lower `stop_stage` are stopped, and awaited, first."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    stop_stage: int = 0


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """Restart delays and timeouts, seconds."""

    first_delay_s: float = 0.5
    longest_delay_s: float = 5.0
    healthy_after_s: float = 30.0  # a child that ran this long is restarted with the first delay
    quick_death_s: float = 5.0
    quick_deaths_allowed: int = 5  # in a row, and only while `give_up_on_quick_deaths`: then the start has failed
    stop_stages_s: Sequence[float] = (7.0, 8.2, 9.2)  # since the stop began, when the next stage's turn comes


class Supervisor:
    """Runs children until `stop`.

    Args:
        changed: called after every start of a child, with the pids of all.
        report: called with a sentence for the terminal when a child has exited.
    """

    def __init__(
        self,
        *,
        changed: Callable[[Mapping[str, int]], None] = lambda _: None,
        report: Callable[[str], None] = lambda _: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self.give_up_on_quick_deaths = True
        self.failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pids: dict[str, int] = {}
        self.deaths: Counter[str] = Counter()
        self._changed = changed
        self._report = report
        self._policy = policy or RestartPolicy()
        self._stopping = asyncio.Event()
        self._children: list[tuple[Child, asyncio.Task[None]]] = []
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    def add(self, child: Child) -> None:
        """Start a child and supervise it."""
        task = asyncio.create_task(self._supervise(child), name=f"keep {child.name}")
        task.add_done_callback(self._ended)
        self._children.append((child, task))

    async def stop(self) -> None:
        """Stop all: stage by stage with SIGTERM, then the remaining ones with SIGKILL."""
        self._stopping.set()
        began = time.monotonic()
        for stage, limit_s in enumerate(self._policy.stop_stages_s):
            tasks = [task for child, task in self._children if child.stop_stage == stage]
            self._signal(signal.SIGTERM, stage)
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.0, began + limit_s - time.monotonic()))
        self.kill()
        await asyncio.gather(*(task for _, task in self._children), return_exceptions=True)

    def kill(self) -> None:
        """Send SIGKILL to all running children."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int, stage: int | None = None) -> None:
        for child, _ in self._children:
            process = self._processes.get(child.name)
            if process is not None and stage in (None, child.stop_stage):
                signal_group(process, number)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def _supervise(self, child: Child) -> None:
        policy = self._policy
        delay_s, quick_deaths = policy.first_delay_s, 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run(child)
            if self._stopping.is_set():
                return
            self.deaths[child.name] += 1
            lived_s = time.monotonic() - began
            quick_deaths = quick_deaths + 1 if lived_s < policy.quick_death_s else 0
            if quick_deaths >= policy.quick_deaths_allowed and self.give_up_on_quick_deaths:
                raise LocalStackError(
                    f"{child.name} ended {quick_deaths} times as it started: {last_log_line(child)}; see {child.log}"
                )
            if lived_s >= policy.healthy_after_s:
                delay_s = policy.first_delay_s
            facts = {"event": "child_ended", "role": child.name, "code": code}
            logger.warning("%s ended with code %d", child.name, code, extra=facts)
            self._report(f"{child.name} {_ending(code)}; restarting it in {delay_s:g} s")
            await self._pause(delay_s)
            delay_s = min(delay_s * 2, policy.longest_delay_s)

    async def _run(self, child: Child) -> int:
        process = await spawn_async(child.argv, env=child.env, log=child.log)
        self._processes[child.name] = process
        self.pids[child.name] = process.pid
        if self._stopping.is_set():  # the signals of `stop` went out while this one was being started
            signal_group(process, signal.SIGKILL)
        self._changed(self.pids)
        return await process.wait()

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return


def last_log_line(child: Child) -> str:
    """Return the last line that the child logged."""
    return next(iter(reversed(tail(child.log))), "it logged nothing")


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
