"""Tasks, dead letters and workers on the real roles, as whoever is on call sees them."""

from __future__ import annotations

import json
import time
from typing import Any

from core.kafka.producer import Record
from schemas import topics
from schemas.codec import TASK
from tests.support.operators import PLAIN, Operators
from tests.support.records import task
from tests.support.waiting import eventually_async, until


async def test_operators_see_cancel_and_repeat_the_tasks_of_all_tenants(operators: Operators) -> None:
    await operators.run("queues", "register", "shared")
    [mine], [theirs] = await operators.put("shared"), await operators.put("shared", tenant="other", size=400)
    await operators.reached([mine, theirs], "completed")
    found = {one["task_id"]: one for one in await operators.ask("tasks", "list", "--queue", "shared")}
    assert {one: found[one]["owner"] for one in (mine, theirs)} == {mine: "acme", theirs: "other"}
    only = await operators.ask("tasks", "list", "--queue", "shared", "--owner", "other")
    assert [one["task_id"] for one in only] == [theirs]
    again = await operators.ask("tasks", "requeue", theirs, "--wait", "30")
    assert (again["status"], again["replay_of"], again["owner"]) == ("completed", theirs, "other")
    shown = await operators.ask("tasks", "show", again["id"])
    assert (shown["task_id"], shown["replay_of"], shown["attempt"]) == (again["task_id"], theirs, 1)
    assert operators.site.arrivals("shared") == 3
    await operators.run("queues", "pause", "shared")
    [waiting] = await operators.put("shared")
    await operators.reached([waiting], "queued")
    early = await operators.run("tasks", "requeue", waiting, code=1)
    assert "has not ended yet" in early.stderr
    assert (await operators.ask("tasks", "cancel", waiting))["status"] == "cancelled"
    await operators.run("queues", "resume", "shared")
    assert "has ended already" in (await operators.run("tasks", "cancel", waiting, code=1)).stderr
    assert "there is no task" in (await operators.run("tasks", "show", "TASK-1", code=1)).stderr


async def test_a_dead_letter_that_has_become_valid_is_accepted(operators: Operators) -> None:
    topic = operators.site.settings.topic(topics.tasks(0))
    value = TASK.encode(task(queue="late", owner=None, model=None, created_ms=time.time_ns() // 1_000_000))
    offset = await operators.producer.send(topic, 1, Record(b"mine", value))

    async def letters(*arguments: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = await operators.ask("dead-letters", "list", "--reason", "late", *arguments)
        return found

    found = await until(letters)
    [letter] = found
    assert (letter["reason"], letter["field"]) == ("queue late is not registered", "queue")
    assert (letter["topic"], letter["partition"], letter["offset"], letter["key"]) == (topic, 1, offset, "mine")
    shown = await operators.ask("dead-letters", "show", str(letter["id"]))
    assert shown["headers"]["x-reason"] == "queue late is not registered"
    await operators.run("queues", "register", "late")
    assert (await operators.ask("dead-letters", "redrive", "--reason", "LATE", "--dry-run"))["chosen"] == [letter["id"]]
    assert (await operators.ask("dead-letters", "redrive", "--reason", "LATE"))["redriven"] == 1
    log = operators.log
    await eventually_async(
        lambda: "completed" in {row["state"] for row in log.of_queue("late")}, what="the redriven task"
    )
    [first] = [row["id"] for row in log.of_queue("late")]
    again = await operators.ask("tasks", "requeue", first, "--wait", "30")
    assert (again["replay_of"], again["model_code"]) == (first, "m"), "the record itself names no model"
    assert (await letters())[0]["redriven_at"] is not None
    assert (await operators.ask("dead-letters", "redrive", "--reason", "late"))["redriven"] == 0, "once is enough"
    purged = await operators.run("dead-letters", "purge", "--up-to", str(letter["id"]), "--yes")
    assert "deleted" in purged.stdout
    assert await letters() == []


async def test_a_task_that_was_written_as_json_runs_again(operators: Operators) -> None:
    await operators.run("queues", "register", "written")
    data = {"model": "sim", "messages": [], "sim": {"key": "written"}, "stream": True}
    value = {"queue": "written", "endpoint": "/v1/chat/completions", "data": data, "trace_id": "json", "owner": "acme"}
    plain = Record(b"any", json.dumps({**value, "idempotency_key": "one"}).encode(), [])
    event = {"specversion": "1.0", "id": "e", "source": "/shop", "type": "order"}
    wrapped = Record(None, json.dumps({**event, "data": {**value, "data": json.dumps(data)}}).encode(), [])
    topic = operators.site.settings.topic(topics.tasks(0))
    for record in (plain, wrapped):
        await operators.producer.send(topic, 0, record)

    def ended() -> list[str]:
        mine = [row for row in operators.log.of_queue("written") if row["replay_of"] is None]
        return [row["id"] for row in mine if row["state"] == "completed"]

    await eventually_async(lambda: len(ended()) == 2, what="the tasks of Kafka")
    for first in ended():
        again = await operators.ask("tasks", "requeue", first, "--wait", "30")
        assert (again["status"], again["replay_of"], again["owner"]) == ("completed", first, "acme")
        assert (again["model_code"], again["trace_id"]) == ("sim", "json")
    assert operators.site.arrivals("written") == 4


async def test_workers_show_what_they_read_and_run(operators: Operators) -> None:
    await operators.goes_through()

    def plain_readers(told: dict[str, Any]) -> list[dict[str, Any]]:
        return [one for one in told["dispatchers"] if one["queues"].get(PLAIN) == 4]

    told = await until(
        lambda: operators.ask("workers", "list"), lambda told: plain_readers(told) and len(told["schedulers"]) == 2
    )
    assert plain_readers(told)[0]["upstreams_up"] == 1
    assert {one["level"]: one["partitions"] for one in told["schedulers"]} == {"online": [0, 1], "offline": [0, 1]}
    assert "UPSTREAMS-UP" in (await operators.run("workers", "list")).stdout
