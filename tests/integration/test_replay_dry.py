"""Dry runs: what they count, and that they touch nothing at all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.kafka.producer import Record
from headrace.replay.choice import Choice
from headrace.replay.estimate import estimated
from headrace.replay.run import opened
from schemas import topics
from tests.support.replay_site import ReplaySite, replay_site


@pytest.fixture(scope="module")
async def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplaySite]:
    async with replay_site(kafka, tmp_path_factory.mktemp("dry")) as site:
        for queue, state, count in (("a", "completed", 30), ("a", "failed", 10), ("b", "cancelled", 5)):
            made = [site.new(queue, number) for number in range(count)]
            await site.write(made)
            await site.write_usage(made, state, tokens=100 if state == "completed" else 0)
        await site.write([site.new("b", 0, owner="other", model=None), site.new("a", 1, replay_of="TASK-1")])
        broken = Record(b"broken", b"\x00\x00\x00\x00\x01broken", [], 1_795_000_000_000)
        await site.producer.send(site.settings.topic(topics.tasks(1)), 0, broken)
        yield site


def files(folder: Path) -> set[str]:
    """List what is on the disk."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


async def test_a_dry_run_counts_and_touches_nothing(site: ReplaySite) -> None:
    offsets, there = await site.ends_of(), files(site.settings.data_dir)
    assert any("usage" in name for name in offsets)
    found = (await site.run("run", "--dry-run", "--json")).json
    assert found["tasks"] == 46
    assert found["groups"] == [
        {"queue": "a", "level": "offline", "model": "m", "ending": "completed", "tasks": 30},
        {"queue": "a", "level": "offline", "model": "m", "ending": "failed", "tasks": 10},
        {"queue": "b", "level": "offline", "model": "m", "ending": "cancelled", "tasks": 5},
        {"queue": "b", "level": "offline", "model": "m", "ending": "none", "tasks": 1},
    ]
    # 46 tasks of which 30 have used 100 and 100 tokens: the others are taken at their mean.
    assert found["estimate"] == [
        {
            "model": "m",
            "tasks": 46,
            "counted": 30,
            "prompt_tokens": 4_600,
            "completion_tokens": 4_600,
            "cost": "27.6000000",
            "currency": "USD",
        },
    ]
    assert found["passed_over"] == {"unreadable": 1}
    assert found["read"] == 46 + 1 + 1 + 45
    assert any("15 days" in note for note in found["notes"])
    table = await site.run("run", "--dry-run", "--queue-to", "shadow", "--model-to", "unpriced", "--from", "-2h")
    assert table.code == 0
    assert "m as unpriced" in table.out
    assert "no price" in table.out
    assert await site.ends_of() == offsets
    assert files(site.settings.data_dir) == there


async def test_what_is_chosen(site: ReplaySite) -> None:
    now_ms = time.time_ns() // 1_000_000
    hour_ms = 3_600_000
    nobody = "TASK-1-1-C-260101000000-0000-000000"
    choices = (
        (Choice(queues=("a",)), 40),
        (Choice(queues=("a", "b")), 46),
        (Choice(queues=("a",), endings=("completed",)), 30),
        (Choice(endings=("failed", "none")), 11),
        (Choice(owners=("other",)), 1),
        (Choice(models=("m",), owners=("acme",)), 45),
        (Choice(models=("another",)), 0),
        (Choice(levels=(0,)), 0),
        (Choice(to_ms=now_ms - hour_ms), 0),
        (Choice(from_ms=now_ms - hour_ms, to_ms=now_ms + hour_ms), 46),
        (Choice(replays=True), 47),
        (Choice(ids=(nobody,)), 0),
    )
    async with opened(site.settings) as lookup:
        for choice, count in choices:
            found = await estimated(site.settings, lookup, choice, now_ms=now_ms, on_read=lambda *_: None)
            assert found.tally.total == count, choice
            assert found.missing_ids == [*choice.ids]
