"""Facts of a batch that follow from its row."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.batches import BATCH_ENDED, BATCH_STATES, Batch, ended_ms
from tests.support.memory_batches import row_of

BATCH_ID = "batch_0000000000000000000000000"


@pytest.mark.parametrize("state", BATCH_STATES)
def test_a_batch_ended_at_the_time_of_its_last_state(state: Any) -> None:
    time: Any = {f"{state}_ms": 50} if state in BATCH_ENDED else {}
    row: Batch = {**row_of(BATCH_ID), "state": state, "updated_ms": 77, **time}
    assert ended_ms(row) == (50 if state in BATCH_ENDED else None)


def test_without_that_time_it_ended_at_its_last_update() -> None:
    row: Batch = {**row_of(BATCH_ID), "state": "cancelled", "cancelled_ms": None, "updated_ms": 77}
    assert ended_ms(row) == 77
