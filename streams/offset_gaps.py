"""Skips offsets without records at the end of a partition: transaction markers, compacted or deleted records.

A gap before a record is known when the record is processed (core/kafka/fetching.py); this covers the others. Apart from
streams/input_offsets.py, which is pure, because it queries the broker.
"""

from __future__ import annotations

from aiokafka import TopicPartition

from core.errors import FatalError, Unavailable
from core.kafka.log_reader import LogReader
from streams.input_offsets import InputOffsets, InputPartition


async def skip_gap(lookup: LogReader, offsets: InputOffsets, place: InputPartition, end: int | None) -> None:
    """Skip the gap at which a partition has stalled; raises FatalError if there is none."""
    at, name = offsets.committable(place), f"{place[0]}/{place[1]}"
    if at is None:
        return
    tp = TopicPartition(*place)
    try:
        upto = (await lookup.bounds([tp]))[tp][1] if end is None else end
        first = await lookup.first(tp, at, upto)
    except Unavailable:
        return  # checked again later
    if offsets.committable(place) != at:
        return
    if first == at:
        raise FatalError(f"records of {name} were never delivered; restarting to read them again")
    if upto < at:
        raise FatalError(
            f"{name} ends at {upto}, below the processed offset {at}: it was recreated; restarting to read all of it"
        )
    offsets.skip(place, upto if first is None else first)
