"""Three brokers with three copies of everything: any one may be lost, and with two away nothing is promised falsely."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from bench.simulator import Simulator
from compose.local.broker import EmbeddedBroker
from compose.local.broker_config import Node
from core.kafka.admin import apply_topics
from core.settings.models import Settings
from schemas import topics
from tests.fault.campaign.audit import judge
from tests.fault.campaign.cluster import Cluster, Member
from tests.fault.campaign.evidence import Evidence
from tests.fault.campaign.ledger import Accepted, Answer, Ledger
from tests.fault.campaign.load import HEADERS, SHAPES, body
from tests.support.ports import free_port
from tests.support.roles import Role, settings_for
from tests.support.waiting import eventually_async

LANES = 6
BLOCKING = next(shape for shape in SHAPES if shape.name == "blocking")
CALLBACK = next(shape for shape in SHAPES if shape.name == "short")
START_S = 240.0


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[list[EmbeddedBroker]]:
    nodes = [Node(id=number, port=free_port(), controller_port=free_port()) for number in (1, 2, 3)]
    made = [
        EmbeddedBroker(
            tmp_path / f"kafka-{node.id}", node=node, nodes=nodes, heap_mb=256, jvm_options=["-XX:TieredStopAtLevel=1"]
        )
        for node in nodes
    ]
    try:
        for broker in made:
            await asyncio.to_thread(broker.start)
        for broker in made:
            await asyncio.to_thread(broker.wait_ready, START_S)
        yield made
    finally:
        for broker in made:
            await asyncio.to_thread(broker.kill)


@pytest.fixture
async def cluster(brokers: list[EmbeddedBroker], tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Simulator() as simulator:
        settings, env = settings_for(
            ",".join(broker.bootstrap for broker in brokers),
            tmp_path,
            "three.",
            upstream__urls=[simulator.url],
            kafka__partitions=3,
            kafka__replication_factor=3,
            kafka__min_insync_replicas=2,
            kafka__request_timeout_s=5,
            streams__session_timeout_s=6,
        )
        await apply_topics(settings)
        port = free_port()
        commands = {
            "ingress": ("ingress", "--port", str(port)),
            "online": ("streams", "--level", "online"),
            "offline": ("streams", "--level", "offline"),
            "dispatcher": ("dispatcher",),
        }
        with ExitStack() as stack:
            members = [
                Member(
                    f"{name}-0",
                    Role(*arguments, env=env, log=tmp_path / f"{name}.log"),
                    f"http://127.0.0.1:{port}" if name == "ingress" else None,
                )
                for name, arguments in commands.items()
            ]
            running = Cluster(brokers[0], settings, members, simulator.root)
            stack.callback(running.stop)
            for member in members:
                member.start()
            await running.until_ready()
            # What a supervisor does; nothing else is restarted.
            keeper = asyncio.create_task(running.keep())
            stack.callback(keeper.cancel)
            yield running


class Clients:
    """Producers that wait for each answer; they count what was answered, and when."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger()
        self.refused_at: list[float] = []
        self.answered_at: list[float] = []
        self._url = url
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Send until stopped."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            await asyncio.gather(self._knock(session), *(self._lane(session, number) for number in range(LANES)))

    def stop(self) -> None:
        """Send nothing new."""
        self._stop.set()

    async def _knock(self, session: aiohttp.ClientSession) -> None:
        """Put tasks that nobody waits for: all lanes may be held by tasks that were accepted before the blow."""
        count = 0
        while not self._stop.is_set():
            count += 1
            put = body(CALLBACK, f"knock {count}", {"latency_ms": 5})
            async with session.post(f"{self._url}/v1/queue/put", data=put, headers=HEADERS) as answer:
                text = await answer.read()
            if answer.status == 200:
                self.ledger.accepted[answer.headers["x-task-id"]] = Accepted("short", "callback")
            else:
                assert answer.status == 503, text
                assert int(answer.headers.get("Retry-After", 0)) >= 1, text
                self.refused_at.append(time.monotonic())
            await asyncio.sleep(0.2)

    async def _lane(self, session: aiohttp.ClientSession, lane: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            put = body(BLOCKING, f"{count} of {lane}", {"latency_ms": 5})
            async with session.post(f"{self._url}/v1/queue/put", data=put, headers=HEADERS) as answer:
                text = await answer.read()
            if answer.status == 200:
                told = Answer(200, text, answer.content_type)
                self.ledger.accepted[answer.headers["x-task-id"]] = Accepted("blocking", "blocking", told)
                self.answered_at.append(time.monotonic())
                continue
            assert answer.status == 503, text
            assert int(answer.headers.get("Retry-After", 0)) >= 1, text
            self.refused_at.append(time.monotonic())
            await asyncio.sleep(0.2)


async def leader(settings: Settings) -> int:
    """Ask which node leads the first partition of the online tasks."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap)
    await client.start()
    try:
        [described] = await client.describe_topics([settings.topic(topics.tasks(0))])
    finally:
        await client.close()
    return next(int(one["leader"]) for one in described["partitions"] if one["partition"] == 0)


async def answers_after(clients: Clients, moment: float, *, count: int = 60) -> float:
    """Wait until so many puts were answered that ended after a moment; return how long the first took."""

    def later() -> list[float]:
        return [at for at in clients.answered_at if at > moment]

    await eventually_async(lambda: len(later()) >= count, what="answers after the blow")
    return later()[0] - moment


@pytest.mark.timeout(900)
async def test_a_leader_is_lost_then_the_majority(brokers: list[EmbeddedBroker], cluster: Cluster) -> None:
    [url] = cluster.urls()
    clients = Clients(url)
    load = asyncio.create_task(clients.run())
    await answers_after(clients, 0.0)

    first = await leader(cluster.settings) - 1
    await asyncio.to_thread(brokers[first].kill)
    await answers_after(clients, time.monotonic() + 1)

    second = (first + 1) % 3
    await asyncio.to_thread(brokers[second].kill)
    blow = time.monotonic()
    await eventually_async(lambda: any(at > blow for at in clients.refused_at), what="a refusal with two brokers away")
    # Writes under way may still be answered; from the first refusal on none can be, for one copy is not enough.
    refused = next(at for at in clients.refused_at if at > blow)
    for broker in (brokers[first], brokers[second]):
        await asyncio.to_thread(broker.start)
    back = time.monotonic()
    for broker in (brokers[first], brokers[second]):
        await asyncio.to_thread(broker.wait_ready, START_S)
    await answers_after(clients, time.monotonic())
    assert not [at for at in clients.answered_at if refused < at < back]

    clients.stop()
    await asyncio.wait_for(load, 90)
    evidence = Evidence(cluster.settings)
    assert await evidence.read(set(clients.ledger.accepted))
    findings = judge(clients.ledger, evidence)
    assert findings.clean, findings
    assert cluster.unasked <= len(cluster.members)
