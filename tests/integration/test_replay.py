"""Replays on a real broker with real roles: resuming, what cannot be repeated, and other upstreams."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from hashlib import sha256

import orjson
import pytest

from bench.simulator import Simulator
from core.kafka.producer import Record
from core.storage.blobs import BlobMissing
from schemas import topics
from schemas.common import Blob
from tests.support.ingress_backend import ingress_running
from tests.support.replay_site import ReplaySite, replay_site, working
from tests.support.waiting import eventually_async, until


@pytest.fixture(scope="module")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplaySite]:
    folder = tmp_path_factory.mktemp("replay")
    async with replay_site(kafka, folder) as opened, working(opened, folder), ingress_running(opened.settings):
        yield opened


async def test_a_replay_that_is_killed_goes_on_and_doubles_nothing(site: ReplaySite) -> None:
    originals = await site.submit("killed", 400)
    command = ("run", "--queue", "killed", "--queue-to", "killed-shadow", "--name", "killed")
    process = await site.start(*command, "--rate", "40", "--yes")
    state = site.settings.data_dir / "replays" / "killed.json"

    def written() -> int:
        return int(orjson.loads(state.read_bytes())["written"]) if state.is_file() else 0

    await eventually_async(lambda: written() >= 20, what="the first tasks of the replay")
    early = state.read_bytes()
    await eventually_async(lambda: written() >= 60, what="more of them")
    process.kill()
    await process.communicate()
    assert written() < 400
    # As if it had died after a write and before it remembered it.
    state.write_bytes(early)
    refused = await site.run("run", "--name", "killed", "--queue", "another", "--queue-to", "killed-shadow")
    assert refused.code == 1
    assert "other options" in refused.err
    assert (await site.run(*command, "--json")).json["written"] == 400
    await site.wait_for_repetitions(originals)
    assert {site.repeated[one] for one in originals} == {1}
    assert (await site.run("diff", "killed", "--json")).json["equal"] == 400


async def test_stored_bodies_are_copied_and_what_cannot_be_repeated_is_named(site: ReplaySite) -> None:
    big = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 30_000}]})
    stored = [site.new("bodies", number, data=None) for number in range(3)]
    for task_id, one in stored:
        one["data_ref"] = await site.blobs.put(big, name=f"tasks/{task_id}", media_type="application/json")
    intact, deleted, foreign = stored
    foreign[1]["data_ref"] = intact[1]["data_ref"]
    duplicates = [site.new("bodies", 0, idempotency_key="once") for _ in range(2)]
    plain = site.new("bodies", 1, data=b'"no object"')
    await site.queues.register(site.producer, "bodies")
    await site.write([*stored, *duplicates, plain])
    ran = [intact[0], deleted[0], foreign[0], duplicates[0][0], plain[0]]
    await site.wait_for_results(ran)
    await site.blobs.remove(f"tasks/{deleted[0]}")

    command = ("run", "--queue", "bodies", "--queue-to", "other", "--model-to", "m2", "--yes", "--json")
    report = (await site.run(*command)).json
    assert {reason: found["ids"] for reason, found in report["problems"].items()} == {
        "body_missing": [deleted[0]],
        "body_foreign": [foreign[0]],
        "body_without_model": [plain[0]],
    }
    assert report["written"] == 3
    await site.wait_for_repetitions([intact[0], duplicates[0][0]])
    repeated = {one["replay_of"]: one for one in site.results.values() if one["queue"] == "other"}
    assert set(repeated) == {intact[0], duplicates[0][0]}, "a duplicate ran although its original did not"
    found = repeated[intact[0]]
    assert (found["state"], found["model"], found["owner"]) == ("completed", "m2", "acme")
    assert orjson.loads(found["body"] or b"")["model"] == "m2"

    live = (await site.run("run", "--id", intact[0], "--into", "live", "--yes", "--json")).json
    assert live["written"] == 1
    await eventually_async(lambda: site.repeated[intact[0]] == 2, what="the repetition in the live queue")
    [last] = [one for one in site.results.values() if one["replay_of"] == intact[0] and one["queue"] == "bodies"]
    copy: Blob = {"uri": f"tasks/{last['id']}", "size": len(big), "sha256": sha256(big).hexdigest()}
    assert await site.blobs.get(copy) == big
    with pytest.raises(BlobMissing):
        await site.blobs.get({**copy, "uri": f"tasks/{deleted[0]}"})


async def test_what_the_scheduler_refused_is_neither_counted_nor_repeated(site: ReplaySite) -> None:
    task_id, one = site.new("refused", 0)
    body = {"queue": "refused", "endpoint": one["endpoint"], "data": {"model": "m", "messages": []}, "id": task_id}
    for number in range(3):  # the first takes the id, and nothing in the others tells that it is taken
        record = Record(b"mine-%d" % number, orjson.dumps(body), [], time.time_ns() // 1_000_000)
        await site.producer.send(site.settings.topic(topics.tasks(1)), 0, record)
    await site.wait_for_results([task_id])
    await until(lambda: site.ends_of(topics.DEAD_LETTERS), lambda ends: sum(ends.values()) >= 2)
    dry = (await site.run("run", "--queue", "refused", "--dry-run", "--json")).json
    assert (dry["tasks"], dry["passed_over"]) == (1, {"refused": 2})
    assert (await site.run("run", "--queue", "refused", "--queue-to", "again", "--yes", "--json")).json["written"] == 1
    await site.wait_for_repetitions([task_id])


async def test_nothing_runs_again_before_a_confirmation(site: ReplaySite) -> None:
    await site.submit("asked", 3)
    before = await site.ends_of(topics.tasks(1))
    refused = await site.run("run", "--queue", "asked", "--into", "live")
    assert refused.code == 1
    assert "3 tasks selected" in refused.out
    assert "Aborted" in refused.err
    nowhere = await site.run("run", "--queue", "asked", "--yes")
    assert (nowhere.code, "--into live" in nowhere.err) == (1, True)
    assert await site.ends_of(topics.tasks(1)) == before


async def test_another_upstream_answers_a_shadow_queue(site: ReplaySite) -> None:
    originals = await site.submit("compared", 30, body={"stream": True}, mode="callback")
    command = ("run", "--queue", "compared", "--queue-to", "elsewhere", "--by-workers", "--name", "elsewhere", "--yes")
    assert (await site.run(*command, "--json")).json["written"] == 30
    before = site.simulator.stats.arrivals
    async with Simulator() as other:
        answered, runs = 0, 0
        while answered < 30 and runs < 5:  # a machine that stands still for so long looks drained
            served = await site.run("serve", "elsewhere", "--upstream", other.url, "--drain")
            assert served.code == 0, served.err
            answered, runs = answered + int(served.out.split(" tasks completed")[0].split()[-1]), runs + 1
        assert (answered, other.stats.arrivals) == (30, 30)
    await site.wait_for_repetitions(originals)
    assert site.simulator.stats.arrivals == before, "a dispatcher called the usual upstream, too"
    found = (await site.run("diff", "elsewhere", "--json")).json
    assert (found["tasks"], found["equal"]) == (30, 30), found
    refused = await site.run("serve", "no-such-queue", "--upstream", site.simulator.url, "--drain")
    assert refused.code == 1
    assert "refuses /v1/queue/take: 404" in refused.err
