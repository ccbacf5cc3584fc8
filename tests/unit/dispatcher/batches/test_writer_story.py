"""A batch with any order of events: ends, failures, a cancel, two alternating writers, late acceptance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings.models import Settings
from schemas import bitmap
from schemas.events import event
from tests.support.batch_doubles import Stage
from tests.support.batch_writer import FAILED, TOTAL, create_batch, custom_ids, ids_of, run_to_the_end, writer_of
from tests.support.clocks import SecondClock


@given(
    st.lists(
        st.sampled_from(
            ["end", "end", "end", "fail", "step", "step", "step", "late", "swap", "judge", "judge", "cancel"]
        ),
        max_size=40,
    )
)
async def test_whatever_happens_in_whatever_order_the_sum_holds(
    tmp_path_factory: pytest.TempPathFactory, story: list[str]
) -> None:
    stage, clock = Stage(tmp_path_factory.mktemp("story"), Settings()), SecondClock()
    row = await create_batch(stage, fed=30)
    writers = [writer_of(stage, clock), writer_of(stage, clock)]
    following = 0
    for what in story:
        assert stage.row is not None
        open_lines = stage.row["state"] == "in_progress" and following < 30
        match what:
            case "end" | "fail" if open_lines:
                stage.end([following], **(FAILED if what == "fail" else {}))
                following += 1
            case "step":
                await writers[0].step()
                clock.now_s += 0.7
            case "late":
                clock.now_s += 31
            case "swap":
                writers.reverse()
            case "judge":
                stage.judge()
            case "cancel":
                stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
                stage.end(range(following, 30), state="cancelled", error_code="batch_cancelled", status_code=499)
                following = 30
    stage.apply(event("batch_cancel", at_ms=1, task_id=row["id"], owner="key-1"))
    stage.end(range(following, 30), state="cancelled", error_code="batch_cancelled", status_code=499)
    await run_to_the_end(stage, writers[1], clock)
    output, errors = await custom_ids(stage)
    assert sorted(output + errors) == sorted(ids_of(range(TOTAL)))
    assert stage.row is not None
    assert bitmap.count(stage.row["written"]) == TOTAL
    assert sum(part["output_lines"] for part in stage.row["parts"]) == len(output)
