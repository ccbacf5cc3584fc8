from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from compose.local.errors import LocalStackError
from compose.local.process import tail
from compose.local.supervisor import Child, RestartPolicy, Supervisor
from tests.support.waiting import eventually_async, is_alive

QUICK = RestartPolicy(first_delay_s=0.02, longest_delay_s=0.05, quick_death_s=5, stop_stages_s=(1.0, 1.5, 2.0))
SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
LATE = """
import signal, sys, time
def stop(*_):
    time.sleep(0.2)
    open(sys.argv[1], "a").write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(600)
"""

MakeChild = Callable[..., Child]


@pytest.fixture
def child(tmp_path: Path) -> MakeChild:
    def make(name: str, code: str, *arguments: str, stage: int = 0, env: Mapping[str, str] | None = None) -> Child:
        return Child(
            name=name,
            argv=[sys.executable, "-c", code, *arguments],
            env={**os.environ, **(env or {})},
            log=tmp_path / f"{name}.log",
            stop_stage=stage,
        )

    return make


async def test_a_child_that_is_killed_starts_again(child: MakeChild) -> None:
    seen: list[int] = []
    said: list[str] = []
    supervisor = Supervisor(changed=lambda pids: seen.append(pids["a"]), report=said.append, policy=QUICK)
    supervisor.add(child("a", SLEEP))
    await eventually_async(lambda: len(seen) == 1)
    os.kill(seen[0], signal.SIGKILL)
    await eventually_async(lambda: len(seen) == 2)
    assert said == ["a was killed by SIGKILL; restarting it in 0.02 s"]
    assert is_alive(seen[1])
    await supervisor.stop()
    assert not any(is_alive(pid) for pid in seen)


async def test_waits_longer_each_time_and_not_after_a_long_life(child: MakeChild) -> None:
    said: list[str] = []
    supervisor = Supervisor(report=said.append, policy=QUICK)
    supervisor.give_up_on_quick_deaths = False
    supervisor.add(child("a", "raise SystemExit(3)"))
    await eventually_async(lambda: len(said) >= 6)
    await supervisor.stop()
    assert [line.rpartition(" in ")[2] for line in said[:4]] == ["0.02 s", "0.04 s", "0.05 s", "0.05 s"]
    assert said[0].startswith("a ended with code 3")

    said.clear()
    healthy = RestartPolicy(first_delay_s=0.02, healthy_after_s=0, stop_stages_s=QUICK.stop_stages_s)
    supervisor = Supervisor(report=said.append, policy=healthy)
    supervisor.give_up_on_quick_deaths = False
    supervisor.add(child("a", "raise SystemExit(3)"))
    await eventually_async(lambda: len(said) >= 3)
    await supervisor.stop()
    assert {line.rpartition(" in ")[2] for line in said} == {"0.02 s"}


async def test_gives_up_on_a_child_that_cannot_start(child: MakeChild) -> None:
    supervisor = Supervisor(policy=QUICK)
    supervisor.add(child("a", "print('the reason', flush=True); raise SystemExit(1)"))
    with pytest.raises(LocalStackError, match=r"a ended 5 times as it started: the reason; see .*a\.log"):
        await asyncio.wait_for(supervisor.failed, 20)
    await supervisor.stop()
    assert supervisor.deaths["a"] == QUICK.quick_deaths_allowed


async def test_stops_stage_by_stage(child: MakeChild, tmp_path: Path) -> None:
    order = tmp_path / "order"
    supervisor = Supervisor(policy=QUICK)
    for name, stage in (("broker", 2), ("streams", 1), ("ingress", 0)):
        supervisor.add(child(name, LATE, str(order), name, stage=stage))
    await eventually_async(lambda: all(tail(tmp_path / f"{name}.log") for name in ("broker", "streams", "ingress")))
    await supervisor.stop()
    assert order.read_text().split() == ["ingress", "streams", "broker"]


async def test_kills_what_will_not_stop(child: MakeChild, tmp_path: Path) -> None:
    supervisor = Supervisor(policy=QUICK)
    for name, stage in (("a", 0), ("b", 2)):
        supervisor.add(child(name, STUBBORN, stage=stage))
    await eventually_async(lambda: all(tail(tmp_path / f"{name}.log") for name in "ab"))
    await asyncio.wait_for(supervisor.stop(), 60)
    assert not any(is_alive(pid) for pid in supervisor.pids.values())


def test_a_stop_takes_less_than_the_ten_seconds_that_are_promised() -> None:
    assert RestartPolicy().stop_stages_s[-1] < 10


async def test_a_stop_during_the_pause_starts_nothing(child: MakeChild) -> None:
    said: list[str] = []
    supervisor = Supervisor(report=said.append, policy=RestartPolicy(first_delay_s=3_600))
    supervisor.add(child("a", "raise SystemExit(1)"))
    await eventually_async(lambda: said)
    pid = supervisor.pids["a"]
    await asyncio.wait_for(supervisor.stop(), 60)
    assert supervisor.pids["a"] == pid
    assert not supervisor.failed.done()


async def test_secrets_travel_by_environment(child: MakeChild, tmp_path: Path) -> None:
    supervisor = Supervisor(policy=QUICK)
    code = f"import os; print(os.environ['SECRET'], flush=True); {SLEEP}"
    supervisor.add(child("a", code, env={"SECRET": "s3cret"}))
    await eventually_async(lambda: tail(tmp_path / "a.log") == ["s3cret"])
    await supervisor.stop()
