"""Collect facts for `headrace doctor`: query Kafka, observe heartbeats for some seconds, query again.

A role whose heartbeat is observed meanwhile is alive; no clock is involved, so clock skew can be measured as well.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from aiokafka import TopicPartition

from core.clock import epoch_ms
from core.diagnostics.facts import ClockSkew, Disk, Facts, QueueFlow, QueueThroughput, SchedulerSeen, WorkerSeen
from core.drain_rate import Backlog, limit_of
from core.errors import Unavailable
from core.kafka.admin import declared_topics
from core.kafka.cluster import Cluster, Lag, Member
from core.kafka.log_reader import LogReader, LogRecord
from core.kafka.offsets import LATEST
from core.kafka.partition_counts import PartitionCount, differing, wrong_setting
from core.kafka.work_topics import changes_of, queues_of, work_topics
from core.settings.models import Settings
from schemas import topics
from schemas.codec import CONTROL, EVENT, SchemaError
from schemas.framing import FramingError
from schemas.headers import TYPE, find
from schemas.records import Queue

LEVELS = (0, 1)
LISTEN_S = 10.0
"""Five heartbeat intervals; a role without a heartbeat for this long is not running."""
AT_LEAST_S = 2.5
"""One heartbeat interval: every running role sends at least one heartbeat."""
LOOK_S = 0.5
HOUR_MS = 3_600_000
OLDEST = 50
"""Maximum partitions whose oldest unread record is fetched."""
_HEARTBEAT = TYPE + b"heartbeat"


async def survey(settings: Settings, cluster: Cluster) -> Facts:
    """Collect for some seconds; unreachable parts are reported in the facts and raise nothing."""
    facts = Facts(kafka=settings.kafka.bootstrap, partitions=settings.kafka.partitions, disks=_disks(settings))
    try:
        wanted = declared_topics(settings)
        there = await cluster.topics(wanted)
        facts.missing_topics = [name for name in wanted if name not in there]
        facts.wrong_setting = wrong_setting(wanted, there, partitions=settings.kafka.partitions)
        facts.partition_counts = [] if facts.wrong_setting else differing(wanted, there)
        facts.unread = await _unread(cluster, facts.partition_counts)
        facts.unreadable = await cluster.unreadable(list(there))
        if not facts.missing_topics:
            await _look(settings, cluster, facts)
    except Unavailable as error:
        facts.broker_error = error.message
    return facts


async def _unread(cluster: Cluster, counts: Sequence[PartitionCount]) -> dict[str, int]:
    """Count the records in partitions of tasks topics that no scheduler reads."""
    extra = {one.topic: range(one.declared, one.actual) for one in counts if one.foreign and not one.short}
    found = await cluster.record_counts([TopicPartition(topic, number) for topic in extra for number in extra[topic]])
    return {topic: sum(found[TopicPartition(topic, number)] for number in numbers) for topic, numbers in extra.items()}


async def _look(settings: Settings, cluster: Cluster, facts: Facts) -> None:
    named = [*(topics.events(level) for level in LEVELS), *(topics.tasks(level) for level in LEVELS)]
    named += [topics.CONTROLS, topics.QUEUES, topics.DEAD_LETTERS]
    async with cluster.reading([settings.topic(name) for name in named]) as lookup:
        facts.queues = await queues_of(settings, lookup)
        await _look_at_topics(settings, cluster, facts)
        wanted = _groups(settings, facts.queues)
        collector = _HeartbeatCollector(settings, lookup)
        await collector.open()
        before = await cluster.lags(wanted)
        began = time.monotonic()
        while (listened := time.monotonic() - began) < LISTEN_S:
            await asyncio.sleep(LOOK_S)
            await collector.run()
            if listened >= AT_LEAST_S and collector.complete():
                break
        facts.watched_s = time.monotonic() - began
        after = await cluster.lags(wanted)
        facts.schedulers, facts.dispatchers, facts.skews = collector.snapshot()
        facts.dead_letters = await _dead_letter_count(settings, lookup)
    works = [settings.topic(topics.work(queue["name"], level)) for queue in facts.queues for level in LEVELS]
    members = await cluster.members(works)
    await _flows(settings, cluster, facts, {(one.group, one.topic): one for one in before}, after, members)


async def _look_at_topics(settings: Settings, cluster: Cluster, facts: Facts) -> None:
    """Find topics that were deleted or re-created, and open transactions that block readers."""
    works = work_topics(settings, facts.queues)
    lacking = changes_of(works, there := await cluster.topics(works))
    facts.missing_work = [one.topic for one in lacking if one.what == "topic"]
    short = [one.topic for one in lacking if one.what == "partitions"]
    work = [PartitionCount(name, there[name], works[name].partitions) for name in short]
    facts.partition_counts = [*facts.partition_counts, *work]
    inputs = [settings.topic(name(level)) for level in LEVELS for name in (topics.tasks, topics.events)]
    held = await cluster.held(await cluster.topics(inputs))
    facts.held = {f"{tp.topic}/{tp.partition}": count for tp, count in held.items()}


async def _flows(
    settings: Settings,
    cluster: Cluster,
    facts: Facts,
    before: dict[tuple[str, str], Lag],
    after: Sequence[Lag],
    members: Mapping[str, Sequence[Member]],
) -> None:
    ages = await _ages(cluster, after)
    flows = {(one.group, one.topic): _flow(before.get((one.group, one.topic)), one, ages) for one in after}
    for level in LEVELS:
        group = settings.topic(f"scheduler.{topics.level_name(level)}")
        inputs = [settings.topic(name(level)) for name in (topics.tasks, topics.events)]
        facts.levels[level] = _together([flows[group, topic] for topic in inputs if (group, topic) in flows])
    sender = settings.topic("webhooks")
    facts.callbacks = _together([flow for (group, _), flow in flows.items() if group == sender])
    facts.backlogs = [
        Backlog(queue["name"], level, flows[work, work].waiting, limit)
        for queue in facts.queues
        if queue["served_by"] != "workers" and (limit := limit_of(settings, queue["name"], queue))
        for level in LEVELS
        if (work := settings.topic(topics.work(queue["name"], level))) and (work, work) in flows
    ]
    facts.work = [
        QueueFlow(queue["name"], level, flows[work, work], len(members.get(work, ())))
        for queue in facts.queues
        if queue["served_by"] != "workers"
        for level in LEVELS
        if (work := settings.topic(topics.work(queue["name"], level))) and (work, work) in flows
    ]


def _groups(settings: Settings, queues: Sequence[Queue]) -> list[tuple[str, str]]:
    """List consumer groups with the topics that they read."""
    pairs = []
    for level in LEVELS:
        group = settings.topic(f"scheduler.{topics.level_name(level)}")
        pairs += [(group, settings.topic(name(level))) for name in (topics.tasks, topics.events)]
        pairs.append((settings.topic("webhooks"), settings.topic(topics.results(level))))
        pairs += [(work, work) for queue in queues if (work := settings.topic(topics.work(queue["name"], level)))]
    return pairs


async def _ages(cluster: Cluster, lags: Sequence[Lag]) -> dict[TopicPartition, int]:
    """Return the age of the oldest unread record, from the partitions with the largest lag."""
    behind = [
        (end - lag.positions[p], TopicPartition(lag.topic, p), lag.positions[p])
        for lag in lags
        for p, end in lag.ends.items()
        if end > lag.positions[p]
    ]
    behind = sorted(behind, reverse=True)[:OLDEST]
    found: dict[TopicPartition, int] = {}
    if behind:
        async with cluster.reading({tp.topic for _, tp, _ in behind}) as lookup:
            for _, tp, position in behind:
                record = await lookup.read(tp, position)
                if record is not None:
                    found[tp] = max(0, epoch_ms() - record.timestamp)
    return found


def _flow(before: Lag | None, after: Lag, ages: dict[TopicPartition, int]) -> QueueThroughput:
    known = [ages[tp] for p in after.ends if (tp := TopicPartition(after.topic, p)) in ages]
    arrived = 0 if before is None else sum(after.ends.values()) - sum(before.ends.values())
    read = 0 if before is None else after.read - before.read
    return QueueThroughput(after.waiting, arrived, read, max(known) if known else None)


def _together(flows: Sequence[QueueThroughput]) -> QueueThroughput:
    ages = [flow.oldest_ms for flow in flows if flow.oldest_ms is not None]
    waiting, arrived, read = (sum(flow[place] or 0 for flow in flows) for place in range(3))
    return QueueThroughput(waiting, arrived, read, max(ages) if ages else None)


async def _dead_letter_count(settings: Settings, lookup: LogReader) -> int:
    count = 0
    for number in range(topics.DEAD_LETTER_PARTITIONS):
        tp = TopicPartition(settings.topic(topics.DEAD_LETTERS), number)
        first = await lookup.offset_at(tp, epoch_ms() - HOUR_MS)
        end = await lookup.offset_at(tp, LATEST)
        count += 0 if first is None or end is None else end - first
    return count


class _HeartbeatCollector:
    """Start to observe heartbeats of schedulers and dispatchers."""

    def __init__(self, settings: Settings, lookup: LogReader) -> None:
        self._lookup = lookup
        # A dispatcher sends heartbeats to every partition of both levels; offline has less traffic.
        self._places = [TopicPartition(settings.topic(name), 0) for name in (topics.CONTROLS, topics.events(1))]
        self._at: dict[TopicPartition, int] = {}
        self._schedulers: dict[str, SchedulerSeen] = {}
        self._dispatchers: dict[str, WorkerSeen] = {}
        self._skews: dict[str, int] = {}
        self._since_ms = 0

    async def open(self) -> None:
        """Begin."""
        self._at = {tp: end for tp, (_, end) in (await self._lookup.bounds(self._places)).items()}
        self._since_ms = epoch_ms()

    async def run(self) -> None:
        """Process the records since the last call."""
        bounds = await self._lookup.bounds(self._places)
        now_ms = epoch_ms()
        for tp, (_, end) in bounds.items():
            async for record in self._lookup.read_range(tp, self._at[tp], end):
                with suppress(FramingError, SchemaError):
                    self._observe(record, now_ms)
            self._at[tp] = end
        self._since_ms = now_ms

    def complete(self) -> bool:
        """Return whether a scheduler of each level and a dispatcher were seen."""
        return {one.level for one in self._schedulers.values()} == set(LEVELS) and bool(self._dispatchers)

    def snapshot(self) -> tuple[list[SchedulerSeen], list[WorkerSeen], list[ClockSkew]]:
        """Return the schedulers and dispatchers seen, and the clocks that differ."""
        skews = [ClockSkew(who, ms) for who, ms in sorted(self._skews.items()) if ms]
        return list(self._schedulers.values()), list(self._dispatchers.values()), skews

    def _observe(self, record: LogRecord, now_ms: int) -> None:
        if record.topic == self._places[0].topic:
            control = CONTROL.decode(record.value or b"")
            name = control["scheduler"] or ""
            if control["kind"] == "pulse":
                self._schedulers[name] = SchedulerSeen(name, control["level"], tuple(control["partitions"]))
                self._compare(name, control["at_ms"], now_ms)
            return
        if find(record.headers, "ce_type") in (_HEARTBEAT, TYPE + b"goodbye"):
            event = EVENT.decode(record.value or b"")
            name = event["worker"] or ""
            if event["kind"] == "goodbye":
                self._dispatchers.pop(name, None)
                return
            self._dispatchers[name] = WorkerSeen(name, event["running"], event["upstreams_up"], event["reason"])
            self._compare(name, event["at_ms"], now_ms)

    def _compare(self, who: str, at_ms: int, now_ms: int) -> None:
        """Record how far a timestamp is outside the interval in which it must have been written.

        The smallest difference counts: a single record may be delayed, but a wrong clock affects all of them.
        """
        skew = at_ms - now_ms if at_ms > now_ms else min(0, at_ms - self._since_ms)
        self._skews[who] = min(self._skews.get(who, skew), skew, key=abs)


def _disks(settings: Settings) -> list[Disk]:
    if not settings.data_dir.is_dir():
        return []
    usage = shutil.disk_usage(settings.data_dir)
    return [Disk(str(settings.data_dir.resolve()), usage.free, usage.total)]
