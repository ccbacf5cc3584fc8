"""Workers that fetch their tasks over HTTP, from two ingresses of one cluster."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.support.ports import free_port
from tests.support.pull_workers import PullSite, yard

ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "taken"}}]}
TASKS = 500


@pytest.fixture(scope="module")
async def y(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PullSite]:
    async with yard(kafka, tmp_path_factory.mktemp("yard")) as opened:
        yield opened


async def test_a_worker_takes_and_completes_and_the_producer_finds_the_result(y: PullSite) -> None:
    queue = await y.queue()
    [task_id] = await y.put_many(queue, 1, trace_id="t-1", callback_url="http://127.0.0.1:9/done")
    [task] = await y.take_some(queue, process_timeout=60)
    assert {"start_time", "expire_time"} < set(task)
    shown = {name: task[name] for name in task if not name.endswith("_time")}
    assert shown == {
        "task_id": task_id, "ak": "", "endpoint": "/v1/chat/completions", "queue": queue, "level": 0,
        "data": {"model": "m", "messages": [], "number": 0}, "status": "queued", "attempt": 1,
        "instance_id": task_id.split("-")[5], "callback_url": "http://127.0.0.1:9/done", "response_mode": "callback",
        "trace_id": "t-1",
    }  # fmt: skip
    assert (await y.show(task_id))["status"] == "queued"
    assert await y.take(queue) == []
    await y.complete(task_id, at=1, body=ANSWER)
    found = await y.ended(task_id)
    assert found["status"] == "succeeded"
    assert found["result"] == {"status_code": 200, "request_id": task_id, "body": ANSWER}
    assert task_id not in y.simulator.stats.keys, "a dispatcher called the model for it, too"


async def test_a_blocking_caller_gets_the_workers_answer(y: PullSite) -> None:
    queue = await y.queue()
    for given, body in ((200, ANSWER), (429, {"error": {"message": "later"}}), ("408", {"late": True})):
        waiting = asyncio.create_task(y.put(queue, response_mode="blocking", timeout=60))
        [task] = await y.take_some(queue, at=1)
        await y.complete(task["task_id"], at=1, status_code=given, body=body)
        assert await asyncio.wait_for(waiting, 30) == (int(given), body)
        shown = await y.ended(task["task_id"])
        assert (shown["status"], shown["result"]["status_code"]) == ("succeeded", int(given))


async def test_a_streaming_caller_gets_the_workers_answer_in_one_piece(y: PullSite) -> None:
    queue = await y.queue()
    waiting = asyncio.create_task(y.stream(queue))
    [task] = await y.take_some(queue)
    await y.complete(task["task_id"], at=1, body=ANSWER)
    frames = [line for line in (await asyncio.wait_for(waiting, 30)).split(b"\n\n") if line.startswith(b"data: ")]
    assert [json.loads(frames[0][6:]), *frames[1:]] == [ANSWER, b"data: [DONE]"]


async def test_the_callback_gets_the_workers_answer(y: PullSite) -> None:
    queue, told = await y.queue(), asyncio.Queue[object]()

    async def receive(request: web.Request) -> web.Response:
        told.put_nowait(await request.json())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/done", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        [task_id] = await y.put_many(queue, 1, callback_url=f"http://127.0.0.1:{port}/done")
        await y.take_some(queue)
        await y.complete(task_id, status_code=418, body=ANSWER)
        assert await asyncio.wait_for(told.get(), 30) == {"status_code": 418, "request_id": task_id, "body": ANSWER}
    finally:
        await runner.cleanup()


async def test_a_text_and_a_large_body_arrive_as_they_were(y: PullSite) -> None:
    queue = await y.queue()
    for body in ("just a text", {"text": "x" * 400_000}):
        [task_id] = await y.put_many(queue, 1)
        [task] = await y.take_some(queue)
        await y.complete(task["task_id"], body=body)
        assert (await y.ended(task_id))["result"]["body"] == body


async def test_every_task_is_held_once_however_many_take(y: PullSite) -> None:
    queue = await y.queue()
    put = set(await y.put_many(queue, TASKS))
    held: Counter[str] = Counter()
    give_up = time.monotonic() + 120

    async def worker(number: int) -> None:
        while len(held) < TASKS:
            assert time.monotonic() < give_up, f"{len(held)} of {TASKS} were taken"
            taken = await y.take(queue, at=number, size=10, process_timeout=600)
            held.update(one["task_id"] for one in taken)
            await asyncio.gather(*(y.complete(one["task_id"], at=number + 1, body=ANSWER) for one in taken))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(worker(number))
    assert set(held) == put
    assert set(held.values()) == {1}
    for at in (0, 1):
        await y.until_counted(queue, TASKS, TASKS, TASKS, at=at)
        assert await y.take(queue, at=at) == []


async def test_a_task_of_a_dead_worker_comes_back_and_the_late_outcome_is_dropped(y: PullSite) -> None:
    queue = await y.queue()
    [task_id] = await y.put_many(queue, 1)
    [first] = await y.take_some(queue, process_timeout=1, process_max_retries=1)
    [second] = await y.take_some(queue, at=1, process_timeout=600, process_max_retries=1)
    assert (first["task_id"], first["attempt"]) == (task_id, 1)
    assert (second["task_id"], second["attempt"]) == (task_id, 2)
    await y.complete(task_id, attempt=1, body={"from": "the first"})
    assert (await y.show(task_id))["status"] in ("waiting", "queued")
    await y.complete(task_id, attempt=2, body={"from": "the second"})
    await y.complete(task_id, body={"from": "nobody"})
    assert (await y.ended(task_id))["result"]["body"] == {"from": "the second"}


async def test_a_lease_outlives_its_scheduler(y: PullSite) -> None:
    queue = await y.queue()
    [task_id, held] = await y.put_many(queue, 2)
    taken = [one["task_id"] for one in await y.take_some(queue, size=1, process_timeout=2)]
    taken += [one["task_id"] for one in await y.take_some(queue, size=1, process_timeout=600)]
    y.scheduler.kill()
    y.scheduler.start()
    [again] = await y.take_some(queue, within_s=60, size=5, process_timeout=600)
    assert (again["task_id"], again["attempt"]) == (taken[0], 2)
    await asyncio.gather(*(y.complete(one, body=ANSWER) for one in taken))
    assert {(await y.ended(one))["status"] for one in (task_id, held)} == {"succeeded"}


async def test_without_a_retry_left_the_task_times_out(y: PullSite) -> None:
    queue = await y.queue()
    waiting = asyncio.create_task(y.put(queue, response_mode="blocking", timeout=100))
    [task] = await y.take_some(queue, process_timeout=1, process_max_retries=0)
    status, body = await asyncio.wait_for(waiting, 60)
    assert (status, body["code"]) == (408, 408)
    assert (await y.ended(task["task_id"]))["status"] == "timeout"


async def test_a_cancelled_task_is_not_handed_out(y: PullSite) -> None:
    queue = await y.queue()
    ids = await y.put_many(queue, 2)
    assert (await y.call("POST", f"{ids[0]}/cancel", key="sk-producers"))[0] == 202
    taken = await y.take_some(queue, size=5)
    assert [one["task_id"] for one in taken] == ids[1:]
    assert (await y.call("POST", f"{ids[1]}/cancel", key="sk-producers"))[0] == 202
    await y.complete(ids[1], body=ANSWER)
    assert (await y.show(ids[1]))["status"] == "cancelled"


async def test_fifo_gives_the_oldest_and_waits_for_age(y: PullSite) -> None:
    queue = await y.queue()
    ids = await y.put_many(queue, 6)
    await y.until_counted(queue, 6)
    assert await y.take(queue, size=9, min_age_seconds=3_600) == []
    got: list[tuple[int, str]] = []
    while len(got) < 6:
        got += [(one["start_time"], one["task_id"]) for one in await y.take_some(queue, size=2)]
    assert got == sorted(got)
    assert {task_id for _, task_id in got} == set(ids)


async def test_active_passive_and_round_robin_keep_to_their_queues(y: PullSite) -> None:
    first, second = await y.queue(), await y.queue()
    for queue in (first, second):
        await y.put_many(queue, 4)
        await y.until_counted(queue, 4)
    in_turn = Counter(one["queue"] for one in await y.take(first, second, strategy="round_robin", size=4))
    assert in_turn == {first: 2, second: 2}
    in_order = Counter(one["queue"] for one in await y.take(first, second, strategy="active_passive", size=3))
    assert in_order == {first: 2, second: 1}


async def test_a_worker_may_serve_both_levels_and_each_answer_names_its_own(y: PullSite) -> None:
    queue = await y.queue()
    [online] = await y.put_many(queue, 1)
    [offline] = await y.put_many(queue, 1, level=1)
    found: dict[str, int] = {}
    while len(found) < 2:
        taken = await y.take_some(f"{queue}:1", f"{queue}:0", strategy="active_passive", size=2)
        found |= {one["task_id"]: one["level"] for one in taken}
    assert found == {online: 0, offline: 1}
    for one in found:
        await y.complete(one, body=ANSWER)
        assert (await y.ended(one))["result"]["body"] == ANSWER


async def test_sequential_holds_one_of_a_queue_at_a_time_in_the_whole_cluster(y: PullSite) -> None:
    queue = await y.queue()
    count = 12
    await y.put_many(queue, count)
    held: set[str] = set()
    most, done = 0, 0
    give_up = time.monotonic() + 120

    async def worker(number: int) -> None:
        nonlocal most, done
        while done < count:
            assert time.monotonic() < give_up, f"{done} of {count} are done"
            for one in await y.take(queue, at=number, size=5, strategy="sequential", process_timeout=600):
                held.add(one["task_id"])
                most = max(most, len(held))
                await asyncio.sleep(0.01)  # the work
                held.discard(one["task_id"])
                await y.complete(one["task_id"], at=number + 1, body=ANSWER)
                done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(worker(number))
    assert (most, done) == (1, count)


async def test_only_the_registrant_and_admins_take_and_complete(y: PullSite) -> None:
    queue = await y.queue()
    [task_id] = await y.put_many(queue, 1)
    take = {"queues": [f"{queue}:0"]}
    assert (await y.call("POST", "take", take, key="sk-producers"))[0] == 404
    assert (await y.call("POST", "take", {"queues": ["never-seen:0"]}))[0] == 404
    assert [one["task_id"] for one in await y.take_some(queue, key="sk-admins")] == [task_id]
    assert (await y.call("POST", f"{task_id}/complete", {"body": 1}, key="sk-producers"))[0] == 404
    assert (await y.call("GET", f"{queue}:0/stats", key="sk-producers"))[0] == 404
    assert (await y.show(task_id))["status"] == "queued"
    assert (await y.call("POST", "register", {"queue": queue, "endpoint": "/v1/x"}, at=1))[0] == 400


async def test_a_queue_of_the_dispatcher_turns_to_workers_with_the_first_take(y: PullSite) -> None:
    queue = await y.queue(served_by="dispatcher")
    before = y.simulator.stats.arrivals
    status, _ = await y.put(queue, response_mode="blocking")
    assert (status, y.simulator.stats.arrivals) == (200, before + 1)
    assert await y.take(queue) == []
    puts = 1
    await y.until_metadata(queue, at=1, served_by="workers")
    in_a_row, give_up = 0, time.monotonic() + 60
    while in_a_row < 5:  # a scheduler or dispatcher that has not read of it yet may still run one itself
        assert time.monotonic() < give_up
        [task_id] = await y.put_many(queue, 1)
        await y.until_counted(queue, (puts := puts + 1), at=1)
        taken = [one["task_id"] for one in await y.take(queue, at=1)]
        in_a_row = in_a_row + 1 if taken == [task_id] else 0
    assert (await y.call("POST", "register", {"queue": queue, "endpoint": "/v1/x"}))[0] == 400


async def test_what_the_dispatcher_has_not_begun_goes_to_the_workers(y: PullSite) -> None:
    queue = await y.queue(served_by="dispatcher")
    before, count = y.simulator.stats.arrivals, 60
    data = {"model": "m", "messages": [], "sim": {"latency_ms": 1_500}}
    ids = await y.put_many(queue, count, data=data)
    await y.until_counted(queue, count)
    taken: set[str] = set()
    give_up = time.monotonic() + 90
    shown: list[dict[str, Any]] = []
    while not shown or {one["status"] for one in shown} != {"succeeded"}:
        assert time.monotonic() < give_up, f"{len(taken)} of {count} were taken"
        some = {one["task_id"] for one in await y.take(queue, size=10)}
        assert not some & taken
        taken |= some
        await asyncio.gather(*(y.complete(one, body=ANSWER) for one in some))
        shown = await asyncio.gather(*map(y.show, ids))
    assert taken
    assert all(one["result"]["body"] == ANSWER for one in shown if one["task_id"] in taken)
    assert y.simulator.stats.arrivals - before < count
