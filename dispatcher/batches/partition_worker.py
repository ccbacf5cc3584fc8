"""What a process does for the batches of one partition while it is its own: feed them, write their files, tidy up."""

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
"""How often a writer with open batches looks whether a piece is old enough."""
RETRY_DELAY_S = 1.0
CRASH_DELAY_S = 30.0
"""One batch that we have an error with must not end a process that has all the others."""


class PartitionWorker:
    """Works from `run` until it is cancelled; another process may work for the same partition for a while."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        *,
        rows: BatchIndex,
        lookup: LogReader,
        blobs: BlobStore,
        producer: Producer,
        fair_share: FairShare,
    ) -> None:
        self._settings = settings
        self._number = number
        self._rows = rows
        self._blobs = blobs
        self._producer = producer
        self._fair_share = fair_share
        self._wake = asyncio.Event()
        self._submitters: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._writer = OutputWriter(
            settings, home=number, rows=lambda: rows.open_batches(number), lookup=lookup, blobs=blobs, producer=producer
        )

    def on_change(self) -> None:
        """Note that rows of this partition have changed."""
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
                        async with asyncio.timeout(POLL_INTERVAL_S if self._rows.open_batches(self._number) else None):
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
                "files of batches are not written now: %s", error.message, extra={"event": "batch_write_failed"}
            )
            await asyncio.sleep(RETRY_DELAY_S)
            return True
        except Exception:
            log.exception("writing the files of batches", extra={"event": "batch_writer_crashed"})
            await asyncio.sleep(CRASH_DELAY_S)
            return True
        await asyncio.sleep(0)
        return more

    async def _collect_garbage(self) -> bool:
        """Remove the pieces that a batch which has ended did not take, or all of one that is not kept any more.

        One batch at a time, for whoever takes a partition over finds those of its last hour; True when there are more.
        """
        ended = self._rows.ended(self._number)
        if ended:
            batch_id, names = next(iter(ended.items()))
            await delete_orphans(self._blobs, batch_id, names)
            if ended.get(batch_id) == names:  # else the batch's row has gone meanwhile, and its last pieces go, too
                del ended[batch_id]
        return bool(ended)

    def _start_submitters(self) -> None:
        """Begin to feed what is not fed yet."""
        for batch_id in [one for one, (task, _) in self._submitters.items() if task.done()]:
            del self._submitters[batch_id]
        for row in self._rows.open_batches(self._number):
            if (
                row["id"] not in self._submitters
                and row["id"] not in self._writer.uncountable
                and needs_submission(row)
            ):
                changed = asyncio.Event()
                submitter = self._submitter(row["id"], changed)
                task = asyncio.create_task(_guarded(submitter), name=f"feed-{row['id']}")
                self._submitters[row["id"]] = (task, changed)

    def _submitter(self, batch_id: str, changed: asyncio.Event) -> BatchSubmitter:
        return BatchSubmitter(
            self._settings,
            batch_id=batch_id,
            row=lambda: self._rows.get(self._number, batch_id),
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
        log.exception("feeding a batch", extra={"event": "batch_feeder_crashed"})
        await asyncio.sleep(CRASH_DELAY_S)
