"""The time machine on a real broker with real roles: shadow runs, resuming, and what cannot be repeated."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from bench.simulator import Simulator
from core.blobs import BlobMissing
from core.kafka.producer import Record
from schemas import topics
from schemas.parts import Blob
from tests.support.ports import free_port
from tests.support.replay_site import ROLES, ReplaySite, past
from tests.support.waiting import eventually_async

MANY = 10_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
async def p(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplaySite]:
    port = free_port()
    async with past(kafka, tmp_path_factory.mktemp("past"), *ROLES, ("ingress", "--port", str(port))) as opened:
        opened.env["HEADRACE_URL"] = f"http://127.0.0.1:{port}"
        yield opened


@pytest.mark.timeout(900)
async def test_ten_thousand_tasks_into_a_shadow_queue_and_compared(p: ReplaySite, tmp_path: Path) -> None:
    originals = await p.submit("whole", MANY)
    told = ("run", "--queue", "whole", "--queue-to", "whole-shadow", "--name", "whole", "--yes", "--json")
    assert (await p.run(*told)).json["written"] == MANY
    await p.again(originals)
    assert {p.repeated[one] for one in originals} == {1}
    lines = tmp_path / "diff.jsonl"
    found = (await p.run("diff", "whole", "--out", str(lines), "--json")).json
    assert (found["tasks"], found["equal"], found["pending"]) == (MANY, MANY, 0)
    [group] = found["groups"]
    assert group["completion_tokens"] == [8 * MANY] * 2
    pairs = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {pair["replay_of"] for pair in pairs} == set(originals)
    assert {pair["replay"]["queue"] for pair in pairs} == {"whole-shadow"}
    again = (await p.run("run", "--name", "whole", "--json")).json
    assert again["written"] == MANY, "a replay that is done does nothing more"


async def test_a_replay_that_is_killed_goes_on_and_doubles_nothing(p: ReplaySite) -> None:
    originals = await p.submit("killed", 400)
    told = ("run", "--queue", "killed", "--queue-to", "killed-shadow", "--name", "killed")
    process = await p.command(*told, "--rate", "40", "--yes")
    state = p.settings.data_dir / "replays" / "killed.json"

    def written() -> int:
        return int(orjson.loads(state.read_bytes())["written"]) if state.is_file() else 0

    await eventually_async(lambda: written() >= 20, within_s=60, what="the first tasks of the replay")
    early = state.read_bytes()
    await eventually_async(lambda: written() >= 60, within_s=60, what="more of them")
    process.kill()
    await process.communicate()
    assert written() < 400
    # As if it had died after a write and before it remembered it.
    state.write_bytes(early)
    refused = await p.run("run", "--name", "killed", "--queue", "another", "--queue-to", "killed-shadow")
    assert refused.code == 1
    assert "other options" in refused.err
    assert (await p.run(*told, "--json")).json["written"] == 400
    await p.again(originals)
    assert {p.repeated[one] for one in originals} == {1}
    assert (await p.run("diff", "killed", "--json")).json["equal"] == 400


async def test_stored_bodies_are_copied_and_what_cannot_be_repeated_is_named(p: ReplaySite) -> None:
    big = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 30_000}]})
    stored = [p.new("bodies", number, data=None) for number in range(3)]
    for task_id, one in stored:
        one["data_ref"] = await p.blobs.put(big, name=f"tasks/{task_id}", media_type="application/json")
    kept, swept, foreign = stored
    foreign[1]["data_ref"] = kept[1]["data_ref"]
    twins = [p.new("bodies", 0, idempotency_key="once") for _ in range(2)]
    plain = p.new("bodies", 1, data=b'"no object"')
    await p.queues.register(p.producer, "bodies")
    await p.write([*stored, *twins, plain])
    ran = [kept[0], swept[0], foreign[0], twins[0][0], plain[0]]
    await p.ended(ran)
    await p.blobs.remove(f"tasks/{swept[0]}")

    said = (await p.run("run", "--queue", "bodies", "--queue-to", "other", "--model-to", "m2", "--yes", "--json")).json
    assert {reason: found["ids"] for reason, found in said["problems"].items()} == {
        "body_missing": [swept[0]], "body_foreign": [foreign[0]], "body_without_model": [plain[0]],
    }  # fmt: skip
    assert said["written"] == 3
    await p.again([kept[0], twins[0][0]])
    repeated = {one["replay_of"]: one for one in p.results.values() if one["queue"] == "other"}
    assert set(repeated) == {kept[0], twins[0][0]}, "a twin ran although its original did not"
    found = repeated[kept[0]]
    assert (found["state"], found["model"], found["owner"]) == ("completed", "m2", "acme")
    assert orjson.loads(found["body"] or b"")["model"] == "m2"

    live = (await p.run("run", "--id", kept[0], "--into", "live", "--yes", "--json")).json
    assert live["written"] == 1
    await eventually_async(lambda: p.repeated[kept[0]] == 2, within_s=60, what="the repetition in the live queue")
    [last] = [one for one in p.results.values() if one["replay_of"] == kept[0] and one["queue"] == "bodies"]
    copy: Blob = {"uri": f"tasks/{last['id']}", "size": len(big), "sha256": sha256(big).hexdigest()}
    assert await p.blobs.get(copy) == big
    with pytest.raises(BlobMissing):
        await p.blobs.get({**copy, "uri": f"tasks/{swept[0]}"})


async def test_what_the_scheduler_refused_is_neither_counted_nor_repeated(p: ReplaySite) -> None:
    task_id, one = p.new("refused", 0)
    body = {"queue": "refused", "endpoint": one["endpoint"], "data": {"model": "m", "messages": []}, "id": task_id}
    letters = p.settings.topic(topics.DEAD_LETTERS)
    for number in range(3):  # the first takes the id, and nothing in the others tells that it is taken
        record = Record(b"mine-%d" % number, orjson.dumps(body), [], now_ms())
        await p.producer.send(p.settings.topic(topics.tasks(1)), 0, record)
    await p.ended([task_id])
    give_up = now_ms() + 60_000
    while sum(end for name, end in (await p.offsets()).items() if name.startswith(letters)) < 2:
        assert now_ms() < give_up, "no dead letters"
        await asyncio.sleep(0.2)
    dry = (await p.run("run", "--queue", "refused", "--dry-run", "--json")).json
    assert (dry["tasks"], dry["passed_over"]) == (1, {"refused": 2})
    assert (await p.run("run", "--queue", "refused", "--queue-to", "again", "--yes", "--json")).json["written"] == 1
    await p.again([task_id])


async def test_nothing_runs_again_before_somebody_says_yes(p: ReplaySite) -> None:
    await p.submit("asked", 3)
    topic = p.settings.topic(topics.tasks(1))
    before = {name: end for name, end in (await p.offsets()).items() if name.startswith(topic)}
    refused = await p.run("run", "--queue", "asked", "--into", "live")
    assert refused.code == 1
    assert "3 tasks chosen" in refused.out
    assert "Aborted" in refused.err
    nowhere = await p.run("run", "--queue", "asked", "--yes")
    assert (nowhere.code, "--into live" in nowhere.err) == (1, True)
    assert {name: end for name, end in (await p.offsets()).items() if name.startswith(topic)} == before


async def test_another_upstream_answers_a_shadow_queue(p: ReplaySite) -> None:
    originals = await p.submit("compared", 30, body={"stream": True}, mode="callback")
    told = ("run", "--queue", "compared", "--queue-to", "elsewhere", "--by-workers", "--name", "elsewhere", "--yes")
    assert (await p.run(*told, "--json")).json["written"] == 30
    before = p.simulator.stats.arrivals
    async with Simulator() as other:
        served = await p.run("serve", "elsewhere", "--upstream", other.url, "--drain")
        assert served.code == 0, served.err
        assert "30 tasks are answered" in served.out
        assert other.stats.arrivals == 30
    await p.again(originals)
    assert p.simulator.stats.arrivals == before, "a dispatcher called the usual upstream, too"
    found = (await p.run("diff", "elsewhere", "--json")).json
    assert (found["tasks"], found["equal"]) == (30, 30), found
    refused = await p.run("serve", "no-such-queue", "--upstream", p.simulator.url, "--drain")
    assert refused.code == 1
    assert "refuses /v1/queue/take: 404" in refused.err
