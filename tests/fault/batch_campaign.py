"""`python -m tests.fault.batch_campaign --lines N --kills N`: one batch while its roles are killed, then an audit.

Every role is a process that is killed -9 at a moment which chance decides, by the share of lines that have ended; the
upstream counts the calls of every task. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from bench.simulator import Simulator
from tests.support.batch_probe import BatchProbe, batch_probe, input_of
from tests.support.kafka import kafka_for_tests
from tests.support.ports import free_port
from tests.support.roles import Role, running, settings_for
from tests.support.waiting import eventually_async

KEY = "hr-local"
ROLES = {"ingress": ("ingress",), "streams": ("streams", "--level", "offline"), "dispatcher": ("dispatcher",)}
CALL_MS = 20
STUCK_S = 120.0
CLIENT_S = 10.0
SLOWEST = 20
"""Lines per second below which a run is given up, on a machine that others use, too."""


@dataclass
class Report:
    """What a batch came to."""

    seed: int
    lines: int
    kills: list[str] = field(default_factory=list)
    seconds: float = 0.0
    row: dict[str, Any] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    downloaded: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)
    calls: int = 0

    def problems(self) -> list[str]:
        """List the promises that were broken."""
        wanted = Counter(f"c-{number}" for number in range(self.lines))
        found = []
        if (self.row["state"], self.row["completed"], self.row["failed"]) != ("completed", self.lines, 0):
            found.append(f"the batch ended as {self.row['state']}: {self.row['completed']} and {self.row['failed']}")
        for what, names in (("the pieces", self.names), ("the download", self.downloaded)):
            if names != wanted:
                found.append(f"{what}: {len(wanted - names)} lines are missing, {len(names - wanted)} are too many")
        if doubled := [task_id for task_id, count in self.results.items() if count > 1]:
            found.append(f"{len(doubled)} lines have two results, {doubled[0]} is one")
        if self.late:
            found.append(f"{len(self.late)} lines ran again after their result was in the log, {self.late[0]} is one")
        return found

    def table(self) -> str:
        """Tell it to people."""
        return (
            f"seed {self.seed}: {self.lines} lines, {len(self.kills)} kills ({', '.join(self.kills)}), "
            f"{self.seconds:.0f} s, {self.calls} calls, {len(self.row['parts'])} pieces"
        )


async def batch_campaign(
    kafka: str, folder: Path, *, seed: int, lines: int, kills: int, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Run a batch to its end and look at everything that it has left."""
    dice, report = random.Random(seed), Report(seed, lines)
    async with Simulator() as sim:
        port = free_port()
        settings, env = settings_for(
            kafka,
            folder,
            f"batch-campaign-{time.time_ns()}.",
            upstream__urls=[sim.url],
            ingress__port=port,
            streams__session_timeout_s=6,
            streams__lease_s=8,
            dispatcher__heartbeat_s=0.5,
            batches__dialect="openai",
        )
        async with batch_probe(settings) as bench:
            with ExitStack() as stack:
                roles = {
                    name: stack.enter_context(running(*arguments, env=env, log=folder / f"{name}.log"))
                    for name, arguments in ROLES.items()
                }
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {KEY}"}, timeout=CLIENT_S
                ) as client:
                    batch_id = await _create(client, lines)
                    began = time.monotonic()
                    await _strike(bench, roles, batch_id, _plan(dice, lines, kills), report, say)
                    row = await bench.until(batch_id, "completed", within_s=STUCK_S + lines / SLOWEST)
                    report.seconds = time.monotonic() - began
                    report.row = dict(row)
                    output, errors = await bench.names(batch_id)
                    report.names = Counter(output + errors)
                    report.downloaded = Counter(await _download(client, batch_id))
                    _count(bench, sim, report)
    return report


def _plan(dice: random.Random, lines: int, kills: int) -> list[tuple[int, str]]:
    """Choose who is killed at how many ends: every role as often as any other, in an order of chance."""
    names = [[*ROLES][number % len(ROLES)] for number in range(kills)]
    dice.shuffle(names)
    return sorted(zip((dice.randrange(lines * 9 // 10) for _ in names), names, strict=True))


async def _strike(
    bench: BatchProbe,
    roles: dict[str, Role],
    batch_id: str,
    plan: list[tuple[int, str]],
    report: Report,
    say: Callable[[str], None],
) -> None:
    for at, name in plan:
        await eventually_async(
            lambda at=at: bench.count(batch_id) >= at or bench.ended(batch_id),  # type: ignore[misc]
            within_s=STUCK_S + report.lines / SLOWEST,
            what=f"{at} ends",
        )
        say(f"{bench.count(batch_id)} lines have ended: kill -9 {name}")
        roles[name].kill()
        roles[name].start()
        report.kills.append(name)


def _count(bench: BatchProbe, sim: Simulator, report: Report) -> None:
    report.results = Counter({task_id: len(times) for task_id, times in bench.results.items()})
    for task_id, (at_ms, *_) in bench.results.items():
        arrivals = sim.stats.keys[task_id].arrival_ms
        report.calls += len(arrivals)
        if arrivals[-1] > at_ms:
            report.late.append(f"{task_id}: result {at_ms}, calls {arrivals}")


async def _create(client: httpx.AsyncClient, lines: int) -> str:
    """Upload the file and create the batch; again while the ingress does not answer."""
    file = input_of(lines, latency_ms=CALL_MS)
    answer = await _patiently(
        lambda: client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("lines.jsonl", file)})
    )
    asked = {"input_file_id": answer.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    answer = await _patiently(lambda: client.post("/v1/batches", json=asked))
    return str(answer.json()["id"])


async def _download(client: httpx.AsyncClient, batch_id: str) -> list[str]:
    """Fetch the output file as its owner does."""
    batch = (await _patiently(lambda: client.get(f"/v1/batches/{batch_id}"))).json()
    answer = await _patiently(lambda: client.get(f"/v1/files/{batch['output_file_id']}/content"))
    return [orjson.loads(line)["custom_id"] for line in answer.content.splitlines()]


async def _patiently(ask: Callable[[], Any]) -> httpx.Response:
    give_up = time.monotonic() + STUCK_S
    while True:
        try:
            answer: httpx.Response = await ask()
        except httpx.TransportError:
            answer = httpx.Response(503)
        if answer.status_code == 200:
            return answer
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < give_up, "the ingress does not answer"
        await asyncio.sleep(0.3)


def main() -> int:
    """Run it and print what it came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.batch_campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides who is killed when")
    parser.add_argument("--lines", type=int, default=50_000, help="lines of the batch")
    parser.add_argument("--kills", type=int, default=10, help="how many processes are killed")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headrace-batch-"))
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {line}\n")
        sys.stdout.flush()

    with kafka_for_tests(folder / "kafka") as kafka:
        report = asyncio.run(
            batch_campaign(kafka, folder, seed=options.seed, lines=options.lines, kills=options.kills, say=say)
        )
    problems = report.problems()
    sys.stdout.write("\n".join([report.table(), *problems, f"logs: {folder}", ""]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
