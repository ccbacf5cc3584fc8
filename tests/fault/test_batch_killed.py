"""A batch while ingress, scheduler and dispatcher are killed: every line once, and none again after its result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.batch_campaign import batch_campaign

SEED = 20261121
LINES = 2_000
KILLS = 6


@pytest.mark.timeout(1200)
async def test_kill_9_in_the_middle_repeats_no_line_and_loses_none(kafka: str, tmp_path: Path) -> None:
    report = await batch_campaign(kafka, tmp_path, seed=SEED, lines=LINES, kills=KILLS)
    assert report.problems() == [], report.table()
    assert sorted(set(report.kills)) == ["dispatcher", "ingress", "streams"]
