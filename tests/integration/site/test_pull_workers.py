"""Workers that fetch their tasks over HTTP, from two ingresses of one cluster."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from tests.support.pull_workers import ANSWER, PullWorkers
from tests.support.receiver import Receiver
from tests.support.site import Client, Site
from tests.support.waiting import eventually_async, until

TASKS = 500


@pytest.fixture(scope="module")
async def workers(site: Site) -> PullWorkers:
    return PullWorkers(site)


async def test_a_worker_takes_and_completes_and_the_producer_finds_the_result(workers: PullWorkers) -> None:
    queue = await workers.queue()
    [task_id] = await workers.put_many(queue, 1, trace_id="t-1", callback_url="http://127.0.0.1:9/done")
    [task] = await workers.take_some(queue, process_timeout=60)
    assert {"start_time", "expire_time"} < set(task)
    shown = {name: task[name] for name in task if not name.endswith("_time")}
    assert shown == {
        "task_id": task_id,
        "ak": "",
        "endpoint": "/v1/chat/completions",
        "queue": queue,
        "level": 0,
        "data": {"model": "m", "messages": [], "number": 0},
        "status": "queued",
        "attempt": 1,
        "instance_id": task_id.split("-")[5],
        "callback_url": "http://127.0.0.1:9/done",
        "response_mode": "callback",
        "trace_id": "t-1",
    }
    assert (await workers.producer.show(task_id))["status"] == "queued"
    assert await workers.take(queue) == []
    await workers.complete(task_id, at=1, body=ANSWER)
    found = await workers.producer.ended(task_id)
    assert found["status"] == "succeeded"
    assert found["result"] == {"status_code": 200, "request_id": task_id, "body": ANSWER}
    assert task_id not in workers.site.simulator.stats.keys, "a dispatcher called the model for it, too"


async def test_a_blocking_caller_gets_the_workers_answer(workers: PullWorkers) -> None:
    queue = await workers.queue()
    for given, body in ((200, ANSWER), (429, {"error": {"message": "later"}}), ("408", {"late": True})):
        waiting = asyncio.create_task(workers.put(queue, response_mode="blocking", timeout=60))
        [task] = await workers.take_some(queue, at=1)
        await workers.complete(task["task_id"], at=1, status_code=given, body=body)
        assert await asyncio.wait_for(waiting, 60) == (int(given), body)
        shown = await workers.producer.ended(task["task_id"])
        assert (shown["status"], shown["result"]["status_code"]) == ("succeeded", int(given))


async def test_a_streaming_caller_gets_the_workers_answer_in_one_piece(workers: PullWorkers) -> None:
    queue = await workers.queue()
    members = {"queue": queue, "data": {"messages": []}}
    waiting = asyncio.create_task(workers.producer.put(mode="streaming", members=members))
    [task] = await workers.take_some(queue)
    await workers.complete(task["task_id"], at=1, body=ANSWER)
    frames = (await waiting).frames
    assert [json.loads(frames[0]), *frames[1:]] == [ANSWER, b"[DONE]"]


async def test_the_callback_gets_the_workers_answer(workers: PullWorkers) -> None:
    queue = await workers.queue()
    async with Receiver() as receiver:
        [task_id] = await workers.put_many(queue, 1, callback_url=f"{receiver.root}/200")
        await workers.take_some(queue)
        await workers.complete(task_id, status_code=418, body=ANSWER)
        await eventually_async(lambda: receiver.got[task_id], what="the callback")
    assert receiver.got[task_id] == [{"status_code": 418, "request_id": task_id, "body": ANSWER}]


async def test_a_text_and_a_large_body_arrive_as_they_were(workers: PullWorkers) -> None:
    queue = await workers.queue()
    for body in ("just a text", {"text": "x" * 400_000}):
        [task_id] = await workers.put_many(queue, 1)
        [task] = await workers.take_some(queue)
        await workers.complete(task["task_id"], body=body)
        assert (await workers.producer.ended(task_id))["result"]["body"] == body


async def test_every_task_is_held_once_however_many_take(workers: PullWorkers) -> None:
    queue = await workers.queue()
    put = set(await workers.put_many(queue, TASKS))
    held: Counter[str] = Counter()
    give_up = time.monotonic() + 120

    async def worker(number: int) -> None:
        while len(held) < TASKS:
            assert time.monotonic() < give_up, f"{len(held)} of {TASKS} were taken"
            taken = await workers.take(queue, at=number, size=10, process_timeout=600)
            held.update(one["task_id"] for one in taken)
            await asyncio.gather(*(workers.complete(one["task_id"], at=number + 1, body=ANSWER) for one in taken))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(worker(number))
    assert set(held) == put
    assert set(held.values()) == {1}
    for at in (0, 1):
        await workers.until_counted(queue, TASKS, TASKS, TASKS, at=at)
        assert await workers.take(queue, at=at) == []


async def test_a_task_of_a_dead_worker_comes_back_and_the_late_outcome_is_dropped(workers: PullWorkers) -> None:
    queue = await workers.queue()
    [task_id] = await workers.put_many(queue, 1)
    [first] = await workers.take_some(queue, process_timeout=1, process_max_retries=1)
    [second] = await workers.take_some(queue, at=1, process_timeout=600, process_max_retries=1)
    assert (first["task_id"], first["attempt"]) == (task_id, 1)
    assert (second["task_id"], second["attempt"]) == (task_id, 2)
    await workers.complete(task_id, attempt=1, body={"from": "the first"})
    assert (await workers.producer.show(task_id))["status"] in ("waiting", "queued")
    await workers.complete(task_id, attempt=2, body={"from": "the second"})
    await workers.complete(task_id, body={"from": "nobody"})
    assert (await workers.producer.ended(task_id))["result"]["body"] == {"from": "the second"}


async def test_without_a_retry_left_the_task_times_out(workers: PullWorkers) -> None:
    queue = await workers.queue()
    waiting = asyncio.create_task(workers.put(queue, response_mode="blocking", timeout=100))
    [task] = await workers.take_some(queue, process_timeout=1, process_max_retries=0)
    status, body = await asyncio.wait_for(waiting, 60)
    assert (status, body["code"]) == (408, 408)
    assert (await workers.producer.ended(task["task_id"]))["status"] == "timeout"


async def test_a_cancelled_task_is_not_handed_out(workers: PullWorkers) -> None:
    queue = await workers.queue()
    ids = await workers.put_many(queue, 2)
    assert (await workers.call("POST", f"{ids[0]}/cancel", tenant="producers"))[0] == 202
    taken = await workers.take_some(queue, size=5)
    assert [one["task_id"] for one in taken] == ids[1:]
    assert (await workers.call("POST", f"{ids[1]}/cancel", tenant="producers"))[0] == 202
    await workers.complete(ids[1], body=ANSWER)
    assert (await workers.producer.show(ids[1]))["status"] == "cancelled"


async def test_fifo_gives_the_oldest_and_waits_for_age(workers: PullWorkers) -> None:
    queue = await workers.queue()
    ids = await workers.put_many(queue, 6)
    await workers.until_counted(queue, 6)
    assert await workers.take(queue, size=9, min_age_seconds=3_600) == []
    got: list[tuple[int, str]] = []
    while len(got) < 6:
        got += [(one["start_time"], one["task_id"]) for one in await workers.take_some(queue, size=2)]
    assert got == sorted(got)
    assert {task_id for _, task_id in got} == set(ids)


async def test_active_passive_and_round_robin_keep_to_their_queues(workers: PullWorkers) -> None:
    first, second = await workers.queue(), await workers.queue()
    for queue in (first, second):
        await workers.put_many(queue, 4)
        await workers.until_counted(queue, 4)
    in_turn = Counter(one["queue"] for one in await workers.take(first, second, strategy="round_robin", size=4))
    assert in_turn == {first: 2, second: 2}
    in_order = Counter(one["queue"] for one in await workers.take(first, second, strategy="active_passive", size=3))
    assert in_order == {first: 2, second: 1}


async def test_a_worker_may_serve_both_levels_and_each_answer_names_its_own(workers: PullWorkers) -> None:
    queue = await workers.queue()
    [online] = await workers.put_many(queue, 1)
    [offline] = await workers.put_many(queue, 1, level=1)
    found: dict[str, int] = {}
    while len(found) < 2:
        taken = await workers.take_some(f"{queue}:1", f"{queue}:0", strategy="active_passive", size=2)
        found |= {one["task_id"]: one["level"] for one in taken}
    assert found == {online: 0, offline: 1}
    for one in found:
        await workers.complete(one, body=ANSWER)
        assert (await workers.producer.ended(one))["result"]["body"] == ANSWER


async def test_sequential_holds_one_of_a_queue_at_a_time_in_the_whole_cluster(workers: PullWorkers) -> None:
    queue = await workers.queue()
    count = 12
    await workers.put_many(queue, count)
    held: set[str] = set()
    most, done = 0, 0
    give_up = time.monotonic() + 120

    async def worker(number: int) -> None:
        nonlocal most, done
        while done < count:
            assert time.monotonic() < give_up, f"{done} of {count} are done"
            for one in await workers.take(queue, at=number, size=5, strategy="sequential", process_timeout=600):
                held.add(one["task_id"])
                most = max(most, len(held))
                await asyncio.sleep(0.01)  # the work
                held.discard(one["task_id"])
                await workers.complete(one["task_id"], at=number + 1, body=ANSWER)
                done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(worker(number))
    assert (most, done) == (1, count)


async def test_only_the_registrant_and_admins_take_and_complete(workers: PullWorkers) -> None:
    queue = await workers.queue()
    [task_id] = await workers.put_many(queue, 1)
    take = {"queues": [f"{queue}:0"]}
    assert (await workers.call("POST", "take", take, tenant="producers"))[0] == 404
    assert (await workers.call("POST", "take", {"queues": ["never-seen:0"]}))[0] == 404
    assert [one["task_id"] for one in await workers.take_some(queue, tenant="admins")] == [task_id]
    assert (await workers.call("POST", f"{task_id}/complete", {"body": 1}, tenant="producers"))[0] == 404
    assert (await workers.call("GET", f"{queue}:0/stats", tenant="producers"))[0] == 404
    assert (await workers.producer.show(task_id))["status"] == "queued"
    assert (await workers.call("POST", "register", {"queue": queue, "endpoint": "/v1/x"}, at=1))[0] == 400


async def test_a_queue_of_the_dispatcher_turns_to_workers_with_the_first_take(workers: PullWorkers) -> None:
    queue = await workers.queue(served_by="dispatcher")
    data = {"model": "m", "messages": [], "sim": {"key": queue}}
    status, _ = await workers.put(queue, response_mode="blocking", data=data)
    assert (status, workers.site.arrivals(queue)) == (200, 1)
    assert await workers.take(queue) == []
    puts = 1
    await workers.until_metadata(queue, at=1, served_by="workers")
    in_a_row, give_up = 0, time.monotonic() + 60
    while in_a_row < 5:  # a scheduler or dispatcher that has not read of it yet may still run one itself
        assert time.monotonic() < give_up
        [task_id] = await workers.put_many(queue, 1)
        await workers.until_counted(queue, (puts := puts + 1), at=1)
        taken = [one["task_id"] for one in await workers.take(queue, at=1)]
        in_a_row = in_a_row + 1 if taken == [task_id] else 0
    assert (await workers.call("POST", "register", {"queue": queue, "endpoint": "/v1/x"}))[0] == 400


async def test_what_the_dispatcher_has_not_begun_goes_to_the_workers(workers: PullWorkers) -> None:
    queue = await workers.queue(served_by="dispatcher")
    count, data = 60, {"model": "m", "messages": [], "sim": {"key": queue, "latency_ms": 1_500}}
    async with Client(workers.site, "admins").call(
        "PATCH", f"/v1/admin/queues/{queue}", json={"concurrency": 8}
    ) as answer:
        assert answer.status == 200, await answer.text()
    ids = await workers.put_many(queue, count, data=data)
    await workers.until_counted(queue, count)
    taken: set[str] = set()

    async def show_after_a_take() -> list[dict[str, Any]]:
        some = {one["task_id"] for one in await workers.take(queue, size=10)}
        assert not some & taken
        taken.update(some)
        await asyncio.gather(*(workers.complete(one, body=ANSWER) for one in some))
        return await asyncio.gather(*map(workers.producer.show, ids))

    shown = await until(show_after_a_take, lambda tasks: {one["status"] for one in tasks} == {"succeeded"})
    assert taken
    assert all(one["result"]["body"] == ANSWER for one in shown if one["task_id"] in taken)
    assert workers.site.arrivals(queue) < count
