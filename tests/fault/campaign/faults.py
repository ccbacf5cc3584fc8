"""What is done to whom, and when: drawn from the seed, carried out, and its recovery measured."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from tests.fault.campaign.cluster import BROKER, Cluster, Kind, now_ms
from tests.fault.campaign.probe import LIMIT_S, Prober

ROLES = {"ingress": 3, "online": 3, "offline": 2, "dispatcher": 4, BROKER: 1}
KINDS: dict[Kind, int] = {"kill": 6, "freeze": 2, "restart": 2}
FREEZE_S = (1.0, 12.0)


@dataclass(slots=True)
class Fault:
    """One blow; `until_ms` is when the process was itself again, the seconds count from the blow."""

    number: int
    kind: Kind
    member: str
    at_ms: int
    freeze_s: float = 0.0
    until_ms: int | None = None
    first_s: float | None = None
    """Until the first task that was new after the blow was done."""
    whole_s: float | None = None
    """Until a task on every partition was done, later faults included."""

    @property
    def role(self) -> str:
        """Return the role that was hit."""
        return self.member.rpartition("-")[0] or self.member

    def line(self, total: int) -> str:
        """Describe it for the progress."""
        what = f"{self.kind} {self.freeze_s:.1f} s" if self.freeze_s else self.kind
        first = "NOT RECOVERED" if self.first_s is None else f"next task after {self.first_s:5.2f} s"
        return f"[{self.number:3}/{total}] {what:14} {self.member:12} {first}"


class Faults:
    """Strike again and again; a freeze lasts while other blows fall, but never on the same process."""

    def __init__(self, cluster: Cluster, prober: Prober, *, seed: int, say: Callable[[str], None]) -> None:
        self._cluster, self._prober, self._say = cluster, prober, say
        self._dice = random.Random(f"{seed}/faults")
        self._pending: set[asyncio.Task[None]] = set()
        self.done: list[Fault] = []

    async def run(self, count: int, *, limit_s: float) -> None:
        """Strike so often or for so long, then wait until all is itself again; any error ends the campaign."""
        give_up = time.monotonic() + limit_s
        for number in range(1, count + 1):
            if time.monotonic() > give_up:
                break
            fault = self._draw(number)
            self.done.append(fault)
            blow = self._spawn(self._strike(fault))
            await self._measure(fault)
            if fault.kind != "freeze":
                await blow
            self._say(fault.line(count))
            await asyncio.sleep(self._dice.uniform(0.1, 1.2))
            self._raise_failures()
        await asyncio.gather(*self._pending)

    def _draw(self, number: int) -> Fault:
        # Two rolls whatever comes out, so that one draw more or less does not change all that follow.
        kind = self._dice.choices([*KINDS], [*KINDS.values()])[0]
        role = self._dice.choices([*ROLES], [*ROLES.values()])[0]
        seconds = round(self._dice.uniform(*FREEZE_S), 1)
        index = self._dice.randrange(2)
        if role == BROKER:
            return Fault(number, "kill", BROKER, now_ms())
        frozen = [member.name for member in self._cluster.members.values() if member.frozen]
        name = f"{role}-{index}"
        if name in frozen:
            name = f"{role}-{1 - index}"
        # Two frozen ones could be both of a role, and then nothing recovers before they thaw: that shows nothing.
        if kind == "freeze" and frozen:
            kind = "kill"
        return Fault(number, kind, name, now_ms(), freeze_s=seconds if kind == "freeze" else 0.0)

    async def _strike(self, fault: Fault) -> None:
        fault.at_ms = now_ms()
        match fault.kind:
            case "kill":
                await self._cluster.kill(fault.member)
            case "freeze":
                await self._cluster.freeze(fault.member, fault.freeze_s)
            case "restart":
                await self._cluster.restart(fault.member)
        fault.until_ms = now_ms()

    async def _measure(self, fault: Fault) -> None:
        await asyncio.sleep(0)  # the blow is begun
        began = time.monotonic()
        wave = self._prober.wave()
        done, _ = await asyncio.wait(wave, return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT_S)
        if done:
            fault.first_s = time.monotonic() - began
        self._spawn(self._follow(fault, wave, began))

    async def _follow(self, fault: Fault, wave: list[asyncio.Task[None]], began: float) -> None:
        done, late = await asyncio.wait(wave, timeout=LIMIT_S)
        for probe in late:
            probe.cancel()
        for probe in done:
            probe.result()
        if not late:
            fault.whole_s = time.monotonic() - began

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._pending.add(task)
        return task

    def _raise_failures(self) -> None:
        for task in [task for task in self._pending if task.done()]:
            self._pending.discard(task)
            task.result()
