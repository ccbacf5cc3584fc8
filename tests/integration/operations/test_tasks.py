"""Tasks, dead letters and workers on the real roles, as whoever is on call sees them."""

from __future__ import annotations

import json
import time

from core.kafka.producer import Record
from schemas import topics
from schemas.codec import TASK
from tests.integration.operations.conftest import LONG_S, Site
from tests.support.records import task
from tests.support.waiting import eventually_async


async def test_operators_see_cancel_and_repeat_the_tasks_of_all_tenants(site: Site) -> None:
    await site.run("queues", "register", "shared")
    [mine], [theirs] = await site.put("shared"), await site.put("shared", key="sk-other", size=400)
    await site.reached([mine, theirs], "completed")
    found = {one["task_id"]: one for one in await site.asked("tasks", "list", "--queue", "shared")}
    assert {one: found[one]["owner"] for one in (mine, theirs)} == {mine: "acme", theirs: "other"}
    only = await site.asked("tasks", "list", "--queue", "shared", "--owner", "other")
    assert [one["task_id"] for one in only] == [theirs]
    again = await site.asked("tasks", "requeue", theirs, "--wait", "30")
    assert (again["status"], again["replay_of"], again["owner"]) == ("completed", theirs, "other")
    shown = await site.asked("tasks", "show", again["id"])
    assert (shown["task_id"], shown["replay_of"], shown["attempt"]) == (again["task_id"], theirs, 1)
    assert site.arrivals("shared") == 3
    await site.run("queues", "pause", "shared")
    [waiting] = await site.put("shared")
    await site.reached([waiting], "queued")
    early = await site.run("tasks", "requeue", waiting, code=1)
    assert "has not ended yet" in early.stderr
    assert (await site.asked("tasks", "cancel", waiting))["status"] == "cancelled"
    await site.run("queues", "resume", "shared")
    assert "has ended already" in (await site.run("tasks", "cancel", waiting, code=1)).stderr
    assert "there is no task" in (await site.run("tasks", "show", "TASK-1", code=1)).stderr


async def test_a_dead_letter_that_has_become_valid_goes_through(site: Site) -> None:
    topic = site.settings.topic(topics.tasks(0))
    value = TASK.encode(task(queue="late", owner=None, model=None, created_ms=time.time_ns() // 1_000_000))
    offset = await site.probes[0].producer.send(topic, 1, Record(b"mine", value))

    async def letters(*arguments: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = await site.asked("dead-letters", "list", "--reason", "late", *arguments)
        return found

    give_up = time.monotonic() + LONG_S
    while not (found := await letters()):
        assert time.monotonic() < give_up, "no dead letter"
    [letter] = found
    assert (letter["reason"], letter["field"]) == ("queue late is not registered", "queue")
    assert (letter["topic"], letter["partition"], letter["offset"], letter["key"]) == (topic, 1, offset, "mine")
    shown = await site.asked("dead-letters", "show", str(letter["id"]))
    assert shown["headers"]["x-reason"] == "queue late is not registered"
    await site.run("queues", "register", "late")
    assert (await site.asked("dead-letters", "redrive", "--reason", "LATE", "--dry-run"))["chosen"] == [letter["id"]]
    assert (await site.asked("dead-letters", "redrive", "--reason", "LATE"))["redriven"] == 1
    rows = site.probes[0].rows
    await eventually_async(
        lambda: [row for row in rows.values() if row and row["queue"] == "late" and row["state"] == "completed"],
        within_s=LONG_S, what="the redriven task",
    )  # fmt: skip
    [first] = [row["id"] for row in rows.values() if row and row["queue"] == "late"]
    again = await site.asked("tasks", "requeue", first, "--wait", "30")
    assert (again["replay_of"], again["model_code"]) == (first, "m"), "the record itself names no model"
    assert (await letters())[0]["redriven_at"] is not None
    assert (await site.asked("dead-letters", "redrive", "--reason", "late"))["redriven"] == 0, "once is enough"
    purged = await site.run("dead-letters", "purge", "--up-to", str(letter["id"]), "--yes")
    assert "deleted" in purged.stdout
    assert await letters() == []


async def test_a_task_that_was_written_as_json_runs_again(site: Site) -> None:
    await site.run("queues", "register", "written")
    data = {"model": "sim", "messages": [], "sim": {"key": "written"}, "stream": True}
    value = {"queue": "written", "endpoint": "/v1/chat/completions", "data": data, "trace_id": "json", "owner": "acme"}
    plain = Record(b"any", json.dumps({**value, "idempotency_key": "one"}).encode(), [])
    event = {"specversion": "1.0", "id": "e", "source": "/shop", "type": "order"}
    wrapped = Record(None, json.dumps({**event, "data": {**value, "data": json.dumps(data)}}).encode(), [])
    topic, rows = site.settings.topic(topics.tasks(0)), site.probes[0].rows
    for record in (plain, wrapped):
        await site.probes[0].producer.send(topic, 0, record)

    def ended() -> list[str]:
        mine = [row for row in rows.values() if row and row["queue"] == "written" and row["replay_of"] is None]
        return [row["id"] for row in mine if row["state"] == "completed"]

    await eventually_async(lambda: len(ended()) == 2, within_s=LONG_S, what="the tasks of Kafka")
    for first in ended():
        again = await site.asked("tasks", "requeue", first, "--wait", "30")
        assert (again["status"], again["replay_of"], again["owner"]) == ("completed", first, "acme")
        assert (again["model_code"], again["trace_id"]) == ("sim", "json")
    assert site.arrivals("written") == 4


async def test_workers_show_what_they_read_and_run(site: Site) -> None:
    await site.goes_through()
    give_up = time.monotonic() + LONG_S
    while True:
        told = await site.asked("workers", "list")
        working = [one for one in told["dispatchers"] if one["queues"].get("plain") == 4]
        if working and len(told["schedulers"]) == 2:
            break
        assert time.monotonic() < give_up, told
    assert working[0]["upstreams_up"] == 1
    assert {one["level"]: one["partitions"] for one in told["schedulers"]} == {"online": [0, 1], "offline": [0, 1]}
    assert "upstreams up" in (await site.run("workers", "list")).stdout
