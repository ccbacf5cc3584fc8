"""Takes of several ingresses over one scheduler: who holds what, also while views lag and nobody judges."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from core.errors import Unavailable
from ingress.pull import claims, service
from ingress.pull.queue import QueueLevel
from ingress.pull.service import PullService
from ingress.pull.strategies import TakeRequest
from tests.support.memory_pull import QUEUE, Cluster

LANE = QueueLevel(QUEUE, 0)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    from core.settings.models import Settings

    return Cluster(Settings(data_dir=tmp_path))


async def ids(of: PullService, **members: object) -> list[str]:
    taken = await of.take(TakeRequest(queues=(LANE,), **members))  # type: ignore[arg-type]
    return [one.row["id"] for tasks in taken.values() for one in tasks]


async def test_two_ingresses_hand_out_every_task_once_and_neither_starves(cluster: Cluster) -> None:
    pullers = [cluster.ingress()[0] for _ in range(2)]
    put = cluster.submit(*range(1, 201))
    held: list[list[str]] = [[], []]

    async def worker(at: int) -> None:
        while sum(map(len, held)) < len(put):
            held[at] += await ids(pullers[at], size=10, lease_ms=1_000_000)
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(*(worker(number % 2) for number in range(6)))
    assert Counter(held[0] + held[1]) == Counter(put)
    assert min(map(len, held)) > 20


async def test_a_lagging_view_hands_out_nothing_that_another_holds(cluster: Cluster) -> None:
    quick, _ = cluster.ingress()
    slow, view = cluster.ingress()
    put = cluster.submit(*range(1, 41))
    assert await ids(slow, size=1, lease_ms=1_000_000) == put[:1]
    view.paused = True
    assert await ids(quick, size=10, lease_ms=1_000_000) == put[1:11]
    taking = asyncio.create_task(ids(slow, size=5, lease_ms=1_000_000))
    for _ in range(50):
        await asyncio.sleep(0)  # the take has claimed what another holds, and waits for the rows
    view.paused = False
    view.catch_up()
    late = await taking
    assert len(late) == 5
    assert not set(late) & set(put[:11])


async def test_a_claim_that_nobody_judges_is_given_back(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "DECISION_TIMEOUT_S", 0.05)
    monkeypatch.setattr(service, "TAKE_TIMEOUT_S", 0.05)
    one, _ = cluster.ingress()
    [put] = cluster.submit(1)
    assert await one.watch(LANE).counted(60)
    cluster.judging = False
    assert await ids(one, lease_ms=1_000_000, retries=0) == []
    cluster.judge()
    row = cluster.rows[put]
    assert (row["state"], row["attempt"], row["lost_workers"]) == ("queued", 2, 0)
    cluster.judging = True
    await asyncio.sleep(0)
    monkeypatch.undo()
    assert await ids(one, lease_ms=1_000_000) == [put]


async def test_without_kafka_nothing_is_handed_out(cluster: Cluster) -> None:
    one, _ = cluster.ingress()
    cluster.submit(1)
    await one.watch(LANE).counted(60)
    cluster.down = True
    with pytest.raises(Unavailable):
        await ids(one)


async def test_sequential_is_one_at_a_time_where_views_lag(cluster: Cluster) -> None:
    """The older task has come late: the one view knows it, and the other only the younger."""
    first, _ = cluster.ingress()
    second, view = cluster.ingress()
    [younger] = cluster.submit(20)
    for one in (first, second):
        await one.watch(LANE).counted(60)
    view.paused = True
    [older] = cluster.submit(10)
    await asyncio.sleep(0)
    assert await ids(first, strategy="sequential", lease_ms=1_000_000) == [older]
    view.paused = False  # from now on it reads, when it is asked to
    assert await ids(second, strategy="sequential", lease_ms=1_000_000) == []
    assert cluster.rows[older]["state"] == "processing"
    assert cluster.rows[younger]["state"] == "queued"


async def test_sequential_holds_one_at_a_time_among_many(cluster: Cluster) -> None:
    chance = random.Random(7)
    pullers = [cluster.ingress()[0] for _ in range(3)]
    put = set(cluster.submit(*range(1, 21)))
    held, done = set[str](), set[str]()

    async def worker(number: int) -> None:
        while done != put:
            for one in await ids(pullers[number % 3], size=5, strategy="sequential", lease_ms=1_000_000):
                held.add(one)
                assert len(held) == 1
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
                held.discard(one)
                done.add(one)
                cluster.write({**cluster.rows[one], "state": "completed", "lease_until_ms": None})
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(*(worker(number) for number in range(6)))


async def test_a_lane_that_is_being_read_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TAKE_TIMEOUT_S", 20)
    one, view = cluster.ingress()
    view.paused = True
    put = cluster.submit(*range(1, 1_501))
    view.catch_up()
    view.paused = False
    assert await ids(one, size=3, lease_ms=1_000_000) == put[:3]


async def test_a_deadline_that_has_passed_is_not_handed_out(cluster: Cluster) -> None:
    one, _ = cluster.ingress()
    past, fine = cluster.submit(1, 2)
    cluster.write({**cluster.rows[past], "deadline_ms": 5})
    assert await ids(one, size=2, lease_ms=1_000_000) == [fine]
