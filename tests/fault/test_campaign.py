"""A short fault campaign; `make test-fault` runs a long one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fault.campaign.run import campaign

SEED = 20261121
FAULTS = 32


@pytest.mark.timeout(1200)
async def test_nothing_is_lost_or_doubled_while_everything_is_killed(tmp_path: Path) -> None:
    report = await campaign(SEED, FAULTS, tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(report.as_json(), indent=1))
    assert not report.problems(), "\n".join([report.table(), f"logs: {tmp_path}", *report.problems()])
    assert len(report.faults) == FAULTS
    assert len(report.ledger.accepted) > 10 * FAULTS
    assert not report.ledger.without_advice
