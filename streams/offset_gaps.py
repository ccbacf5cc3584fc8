"""Offsets at which the log has no record: marks of transactions, what was compacted away or deleted.

A gap before a record is known when the record is folded (core/kafka/fetching.py); these are for what nothing follows.
Apart from streams/input_offsets.py, which is pure: this asks the broker.
"""

from __future__ import annotations

from aiokafka import TopicPartition

from core.errors import FatalError, Unavailable
from core.kafka.log_reader import LogReader
from streams.input_offsets import InputOffsets, InputPartition


async def skip_gap(lookup: LogReader, offsets: InputOffsets, place: InputPartition, end: int | None) -> None:
    """Pass the gap at which a partition stands still; raises FatalError when there is none."""
    at, name = offsets.committable(place), f"{place[0]}/{place[1]}"
    if at is None:
        return
    tp = TopicPartition(*place)
    try:
        upto = (await lookup.bounds([tp]))[tp][1] if end is None else end
        first = await lookup.first(tp, at, upto)
    except Unavailable:
        return  # it is looked at again
    if offsets.committable(place) != at:
        return
    if first == at:
        raise FatalError(f"records of {name} were never delivered; reading them again")
    if upto < at:
        raise FatalError(
            f"{name} ends at {upto}, before the {at} that was reached: it was made anew; reading all of it"
        )
    offsets.skip(place, upto if first is None else first)
