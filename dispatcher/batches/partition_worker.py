"""Batch work for one assigned partition: submit lines, write output files, collect garbage."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from core.errors import Unavailable
from core.kafka.log_reader import LogReader
from core.kafka.producer import Producer
from core.settings.models import Settings
from core.storage.blobs import BlobStore
from dispatcher.batches.index import BatchIndex
from dispatcher.batches.output_segments import delete_orphans
from dispatcher.batches.output_writer import OutputWriter
from dispatcher.batches.submitter import BatchSubmitter, FairShare, needs_submission

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.25
"""How often a writer with open batches checks the age of its segments."""
RETRY_DELAY_S = 1.0
CRASH_DELAY_S = 30.0
"""An error with one batch must not end the process, which has other batches."""


class PartitionWorker:
    """Works from `run` until it is cancelled; another process may work on the same partition for a short time."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        *,
        batch_index: BatchIndex,
        log_reader: LogReader,
        blobs: BlobStore,
        producer: Producer,
        fair_share: FairShare,
    ) -> None:
        self._settings = settings
        self._number = number
        self._batch_index = batch_index
        self._blobs = blobs
        self._producer = producer
        self._fair_share = fair_share
        self._wake = asyncio.Event()
        self._submitters: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._writer = OutputWriter(
            settings,
            home=number,
            rows=lambda: batch_index.open_batches(number),
            log_reader=log_reader,
            blobs=blobs,
            producer=producer,
        )

    def on_change(self) -> None:
        """Handle a change of this partition's rows."""
        self._wake.set()
        for _, changed in self._submitters.values():
            changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._wake.clear()
                self._start_submitters()
                if not await self._step():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(
                            POLL_INTERVAL_S if self._batch_index.open_batches(self._number) else None
                        ):
                            await self._wake.wait()
        finally:
            submitters = [task for task, _ in self._submitters.values()]
            for task in submitters:
                task.cancel()
            await asyncio.gather(*submitters, return_exceptions=True)

    async def _step(self) -> bool:
        try:
            more = await self._writer.step()
            more = await self._collect_garbage() or more
        except Unavailable as error:
            log.warning(
                "cannot write batch output, will retry: %s", error.message, extra={"event": "batch_write_failed"}
            )
            await asyncio.sleep(RETRY_DELAY_S)
            return True
        except Exception:
            log.exception("the batch output writer failed unexpectedly", extra={"event": "batch_writer_crashed"})
            await asyncio.sleep(CRASH_DELAY_S)
            return True
        await asyncio.sleep(0)
        return more

    async def _collect_garbage(self) -> bool:
        """Delete segments that a finished batch did not accept, or all segments of a deleted one.

        One batch at a time, because a new owner finds those of the last hour; True when there are more.
        """
        ended = self._batch_index.ended(self._number)
        if ended:
            batch_id, names = next(iter(ended.items()))
            await delete_orphans(self._blobs, batch_id, names)
            if (
                ended.get(batch_id) == names
            ):  # otherwise the row was deleted meanwhile, and its last segments are deleted too
                del ended[batch_id]
        return bool(ended)

    def _start_submitters(self) -> None:
        """Start submitters for the batches that need one."""
        for batch_id in [one for one, (task, _) in self._submitters.items() if task.done()]:
            del self._submitters[batch_id]
        for row in self._batch_index.open_batches(self._number):
            if (
                row["id"] not in self._submitters
                and row["id"] not in self._writer.uncountable
                and needs_submission(row)
            ):
                changed = asyncio.Event()
                submitter = self._submitter(row["id"], changed)
                task = asyncio.create_task(_guarded(submitter), name=f"submit-{row['id']}")
                self._submitters[row["id"]] = (task, changed)

    def _submitter(self, batch_id: str, changed: asyncio.Event) -> BatchSubmitter:
        return BatchSubmitter(
            self._settings,
            batch_id=batch_id,
            row=lambda: self._batch_index.get(self._number, batch_id),
            changed=changed,
            blobs=self._blobs,
            producer=self._producer,
            fair_share=self._fair_share,
            uncountable=self._writer.uncountable.add,
        )


async def _guarded(submitter: BatchSubmitter) -> None:
    try:
        await submitter.run()
    except Exception:
        log.exception("a batch submitter failed unexpectedly", extra={"event": "batch_submitter_crashed"})
        await asyncio.sleep(CRASH_DELAY_S)
