"""A replay of ten thousand tasks on a real broker with real roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.replay_site import replay_site
from tests.support.roles import running

MANY = 10_000


@pytest.mark.timeout(900)
async def test_ten_thousand_tasks_into_a_shadow_queue_and_compared(kafka: str, tmp_path: Path) -> None:
    async with replay_site(kafka, tmp_path) as site:
        await site.queues.register(site.producer, "whole")
        originals = await site.write_past([site.new("whole", number) for number in range(MANY)])
        with (
            running("streams", "--level", "offline", env=site.env, log=tmp_path / "streams.log"),
            running("dispatcher", "--component", "inference", env=site.env, log=tmp_path / "dispatcher.log"),
        ):
            command = ("run", "--queue", "whole", "--queue-to", "whole-shadow", "--name", "whole", "--yes", "--json")
            assert (await site.run(*command)).json["written"] == MANY
            await site.wait_for_repetitions(originals, within_s=600)
        assert {site.repeated[one] for one in originals} == {1}
        assert len(site.results) == 2 * MANY
        lines = tmp_path / "diff.jsonl"
        found = (await site.run("diff", "whole", "--out", str(lines), "--json")).json
        assert (found["tasks"], found["equal"], found["pending"]) == (MANY, MANY, 0)
        [group] = found["groups"]
        assert group["completion_tokens"] == [8 * MANY] * 2
        pairs = [json.loads(line) for line in lines.read_text().splitlines()]
        assert {pair["replay_of"] for pair in pairs} == set(originals)
        assert {pair["replay"]["queue"] for pair in pairs} == {"whole-shadow"}
        again = (await site.run("run", "--name", "whole", "--json")).json
        assert again["written"] == MANY, "a replay that is done does nothing more"
