"""The output writer of a batch, run step by step with its scheduler."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.batches.output_writer import OutputWriter
from schemas.batches import Batch
from tests.support.batch_doubles import HOME, Stage, input_file
from tests.support.clocks import SecondClock

TOTAL = 40
FAILED: dict[str, Any] = {"state": "failed", "status_code": 500, "error_code": "upstream_error", "error_message": "no"}


async def create_batch(stage: Stage, *, fed: int = TOTAL) -> Batch:
    """Create a batch whose lines are tasks."""
    return await stage.create(input_file(TOTAL), state="in_progress", total=TOTAL, fed=fed)


def writer_of(stage: Stage, clock: SecondClock) -> OutputWriter:
    """Build a writer of the batch."""
    return OutputWriter(
        stage.settings,
        home=HOME,
        rows=stage.rows,
        log_reader=stage.lookup,
        blobs=stage.blobs,
        producer=stage.producer,
        clock=lambda: stage.now_ms,
        monotonic=clock,
    )


async def run_to_the_end(stage: Stage, writer: OutputWriter, clock: SecondClock) -> None:
    """Let time pass until the batch has ended."""
    for _ in range(60):
        await writer.step()
        stage.judge()
        clock.now_s += 2
        if not stage.rows():
            return
    pytest.fail(f"the batch has not ended: {stage.row}")


async def custom_ids(stage: Stage) -> tuple[list[str], list[str]]:
    """Return the custom_ids of output and errors."""
    output, errors = [[line["custom_id"] for line in await stage.content(errors=kind)] for kind in (False, True)]
    return output, errors


def ids_of(lines: range) -> list[str]:
    """Return the custom_ids of lines of the input file."""
    return [f"c-{line}" for line in lines]
