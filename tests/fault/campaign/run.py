"""One campaign from the first task to the verdict."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tests.fault.campaign.audit import ask_readers, judge
from tests.fault.campaign.cluster import Cluster, cluster
from tests.fault.campaign.evidence import Evidence
from tests.fault.campaign.explain import explain
from tests.fault.campaign.faults import Faults
from tests.fault.campaign.ledger import Ledger
from tests.fault.campaign.load import Load
from tests.fault.campaign.probe import LIMIT_S, Prober
from tests.fault.campaign.report import Report
from tests.fault.campaign.standstills import standstills
from tests.support.waiting import eventually_async

WARM_UP = 50


async def campaign(
    seed: int,
    faults: int,
    folder: Path,
    *,
    limit_s: float = math.inf,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a campaign; logs and data stay in the folder.

    The seed decides the load of each producer and the sequence of blows; which task a blow meets is up to the machine.
    """
    began = time.monotonic()
    ledger = Ledger()
    async with cluster(folder) as running:
        say(f"cluster ready after {time.monotonic() - began:.0f} s; logs in {folder}")
        with standstills() as stalls:
            struck = await _strike(running, ledger, seed=seed, faults=faults, limit_s=limit_s, say=say)
        say(f"{len(ledger.accepted)} tasks acknowledged; reading from the first offset on")
        evidence = Evidence(running.settings)
        if not await evidence.read(set(ledger.accepted)):
            say("NOT every task has ended in time")
        findings = judge(ledger, evidence)
        await running.until_ready()
        known = [one for one in ledger.accepted if one in evidence.results]
        findings.readers = await ask_readers(running.urls(), evidence, known, seed=seed)
        repeats = explain(await _arrivals(running), evidence, [*struck.done, *stalls])
        return Report(
            seed=seed,
            seconds=time.monotonic() - began,
            faults=struck.done,
            ledger=ledger,
            results=len(evidence.results),
            letters=evidence.letters,
            states=Counter(several[0][1]["state"] for several in evidence.results.values()),
            findings=findings,
            repeats=repeats,
            unasked=running.unasked,
            standstills=stalls,
        )


async def _strike(
    running: Cluster, ledger: Ledger, *, seed: int, faults: int, limit_s: float, say: Callable[[str], None]
) -> Faults:
    """Keep the load up while the blows fall."""
    load = Load(ledger, running.urls, seed=seed)
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        await eventually_async(lambda: len(ledger.accepted) >= WARM_UP, what="the first tasks")
        striker = Faults(running, Prober(ledger, running.urls, session), seed=seed, say=say)
        await striker.run(faults, limit_s=limit_s)
        load.stop()
    return striker


async def _arrivals(running: Cluster) -> dict[str, list[int]]:
    """Ask the upstream when it was called for which task."""
    async with aiohttp.ClientSession() as session, session.get(f"{running.simulator}/sim/stats") as answer:
        stats = await answer.json()
    return {key: seen["arrival_ms"] for key, seen in stats["keys"].items()}
