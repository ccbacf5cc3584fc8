"""Keep Faust running when topics were extended or re-created: it assumes that neither happens.

It leans on private parts of Faust; a canary test checks that they still exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

log = logging.getLogger(__name__)

SLICE = 2_000
"""Rows deleted before the event loop gets a turn: about 10 ms."""


class _FirstPartitions:
    """The cluster as if every topic had at most a number of partitions."""

    def __init__(self, cluster: Any, most: int) -> None:
        self._cluster = cluster
        self._most = most

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Return the partitions of a topic that are used."""
        return {number for number in self._cluster.partitions_for_topic(topic) or () if number < self._most}


class UsedPartitionsAssignor(PartitionAssignor):
    """Assign only the declared partitions of a topic.

    Faust assigns topics of different partition counts independently: once somebody had extended a topic, one scheduler
    would read the tasks of a partition, another one its events, and a third one would hold its rows.
    """

    def assign(self, cluster: Any, member_metadata: Any) -> Any:
        """Assign partitions to members."""
        return super().assign(_FirstPartitions(cluster, self.app.conf.topic_partitions), member_metadata)


async def discard_outdated_rows(tables: Any, ends: Mapping[TP, int | None]) -> None:
    """Empty the local store of each changelog partition that ends before what the store contains.

    Its topic was deleted and re-created. Faust ends the process instead, at every start, until somebody deletes the
    store's files. The rows cannot be kept: another scheduler may have owned the partition since they were written.
    """
    recovery = tables.recovery
    for tp, end in ends.items():
        offset = recovery.active_offsets.get(tp)
        if offset is None or offset < (end or 0):
            continue
        log.warning(
            "%s/%d was re-created: it ends at %d, and the local store contains it up to %d; building the store again",
            *tp,
            end or 0,
            offset,
            extra={"event": "table_outdated", "topic": tp.topic, "partition": tp.partition},
        )
        store = recovery.tp_to_table[tp].data._db_for_partition(tp.partition)  # noqa: SLF001
        for number, key in enumerate(store.keys()):
            store.delete(key)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        recovery.active_offsets[tp] = None
