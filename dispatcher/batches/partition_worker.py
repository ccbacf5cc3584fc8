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
from dispatcher.batches.output_segments import tidy
from dispatcher.batches.output_writer import OutputWriter
from dispatcher.batches.submitter import BatchSubmitter, FairShare, needs_submission

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often a writer with open batches looks whether a piece is old enough."""
AGAIN_S = 1.0
CRASHED_S = 30.0
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
        turns: FairShare,
    ) -> None:
        self._settings = settings
        self._number = number
        self._rows = rows
        self._blobs = blobs
        self._producer = producer
        self._turns = turns
        self._wake = asyncio.Event()
        self._feeders: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._writer = OutputWriter(
            settings, home=number, rows=lambda: rows.of(number), lookup=lookup, blobs=blobs, producer=producer
        )

    def changed(self) -> None:
        """Note that rows of this partition have changed."""
        self._wake.set()
        for _, changed in self._feeders.values():
            changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._wake.clear()
                self._feed()
                if not await self._step():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S if self._rows.of(self._number) else None):
                            await self._wake.wait()
        finally:
            feeders = [task for task, _ in self._feeders.values()]
            for task in feeders:
                task.cancel()
            await asyncio.gather(*feeders, return_exceptions=True)

    async def _step(self) -> bool:
        try:
            more = await self._writer.step()
            more = await self._tidy() or more
        except Unavailable as error:
            log.warning(
                "files of batches are not written now: %s", error.message, extra={"event": "batch_write_failed"}
            )
            await asyncio.sleep(AGAIN_S)
            return True
        except Exception:
            log.exception("writing the files of batches", extra={"event": "batch_writer_crashed"})
            await asyncio.sleep(CRASHED_S)
            return True
        await asyncio.sleep(0)
        return more

    async def _tidy(self) -> bool:
        """Remove the pieces that a batch which has ended did not take, or all of one that is not kept any more.

        One batch at a time, for whoever takes a partition over finds those of its last hour; True when there are more.
        """
        ended = self._rows.ended(self._number)
        if ended:
            batch_id, kept = next(iter(ended.items()))
            await tidy(self._blobs, batch_id, kept)
            if ended.get(batch_id) == kept:  # else the batch's row has gone meanwhile, and its last pieces go, too
                del ended[batch_id]
        return bool(ended)

    def _feed(self) -> None:
        """Begin to feed what is not fed yet."""
        for batch_id in [one for one, (task, _) in self._feeders.items() if task.done()]:
            del self._feeders[batch_id]
        for row in self._rows.of(self._number):
            if row["id"] not in self._feeders and row["id"] not in self._writer.uncountable and needs_submission(row):
                changed = asyncio.Event()
                feeder = self._feeder(row["id"], changed)
                task = asyncio.create_task(_guarded(feeder), name=f"feed-{row['id']}")
                self._feeders[row["id"]] = (task, changed)

    def _feeder(self, batch_id: str, changed: asyncio.Event) -> BatchSubmitter:
        return BatchSubmitter(
            self._settings,
            batch_id=batch_id,
            row=lambda: self._rows.get(self._number, batch_id),
            changed=changed,
            blobs=self._blobs,
            producer=self._producer,
            turns=self._turns,
            uncountable=self._writer.uncountable.add,
        )


async def _guarded(feeder: BatchSubmitter) -> None:
    try:
        await feeder.run()
    except Exception:
        log.exception("feeding a batch", extra={"event": "batch_feeder_crashed"})
        await asyncio.sleep(CRASHED_S)
