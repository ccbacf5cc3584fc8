"""Evaluate the facts: what is stuck, why, and the next step. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.diagnostics.facts import Disk, Facts, Finding, QueueFlow, QueueThroughput, Weight
from schemas.topics import level_name

SKEW_MS = 5_000
"""Half of the default lease; smaller differences may be delays of a busy machine."""
BEHIND_MS = 10_000
"""A scheduler processes a record within milliseconds; beyond this it is lagging."""
STILL_MS = 60_000
"""Age from which a queued task is reported although workers are available."""
CALLBACKS_WAITING = 1_000
MIN_FREE = 0.05
MIN_FREE_BYTES = 1 << 30
NAMED = 5


def findings(facts: Facts) -> list[Finding]:
    """List the findings, problems first."""
    if facts.broker_error is not None:
        return [*map(_itself, facts.ingress), _broker(facts), *_disks(facts)]
    found = [
        *map(_itself, facts.ingress),
        *_topics(facts),
        *_levels(facts),
        *_dispatchers(facts),
        *_queues(facts),
        *_full(facts),
        *_pulled(facts),
        *_callbacks(facts),
        *_clocks(facts),
        *_disks(facts),
        *_dead_letters(facts),
    ]
    return sorted(found, key=lambda one: one.weight != "problem")


def _itself(sentence: str) -> Finding:
    return Finding(
        "problem", "ingress", "ingress", sentence, "look at its log; `GET /readyz` shows when it is resolved"
    )


def _broker(facts: Facts) -> Finding:
    return Finding(
        "problem",
        "broker_unreachable",
        facts.kafka,
        facts.broker_error or "no broker answers",
        "start the broker, or correct kafka.bootstrap; all roles reconnect once it answers",
    )


def _topics(facts: Facts) -> Iterator[Finding]:
    if facts.missing_topics:
        names = _some(facts.missing_topics)
        yield Finding(
            "problem", "topics_missing", "topics", f"there is no topic {names}", "run `headrace topics apply`"
        )
    if facts.missing_work:
        yield Finding(
            "problem",
            "work_topics_missing",
            "topics",
            f"there is no topic {_some(facts.missing_work)}; the tasks of its queue wait",
            "run `headrace topics apply`",
        )
    if facts.wrong_setting:
        step = "correct the setting, and restart the roles"
        yield Finding("problem", "partitions_setting", "topics", facts.wrong_setting, step)
    for one in facts.partition_counts:
        unread = facts.unread.get(one.topic, 0)
        waits = f"; {_count(unread, 'record')} there" if unread else ""
        weight: Weight = "problem" if one.short or one.foreign else "note"
        yield Finding(weight, "topic_width", one.topic, one.problem + waits, one.remedy)
    if facts.unreadable:
        kinds = ", ".join(sorted(set(facts.unreadable.values())))
        yield Finding(
            "problem",
            "compression_unreadable",
            "topics",
            f"records of {_some(list(facts.unreadable))} are written with compression.type {kinds}, which is not read",
            "run `headrace topics apply`; it sets compression.type of these topics to producer",
        )
    for place, count in facts.held.items():
        yield Finding(
            "note",
            "transaction_open",
            place,
            f"{_count(count, 'record')} of {place} wait for the end of a transaction",
            "end it at its producer; Kafka does so after its transaction.timeout.ms",
        )


def _levels(facts: Facts) -> Iterator[Finding]:
    if facts.missing_topics:
        return
    for level, flow in sorted(facts.levels.items()):
        name = level_name(level)
        owned = [set(one.partitions) for one in facts.schedulers if one.level == level]
        if not owned:
            waits = f"; {_count(flow.waiting, 'record')} are not processed yet" if flow.waiting else ""
            yield Finding(
                "problem",
                "scheduler_stopped",
                name,
                f"no heartbeat from the {name} scheduler in the last {facts.watched_s:.0f} s{waits}",
                f"start `headrace streams --level {name}`, or read its log",
            )
            continue
        if unowned := sorted(set(range(facts.partitions)).difference(*owned)):
            yield Finding(
                "problem",
                "partitions_unserved",
                name,
                f"no {name} scheduler serves partition {', '.join(map(str, unowned))}",
                "wait some seconds, a scheduler may be recovering its table; then read the schedulers' logs",
            )
        if flow.oldest_ms is not None and flow.oldest_ms > BEHIND_MS:
            pace = "and falls further behind" if flow.growing else "and is catching up"
            yield Finding(
                "problem",
                "scheduler_behind",
                name,
                f"the {name} scheduler is {_count(flow.waiting, 'record')} and {_span(flow.oldest_ms)} behind {pace}",
                f"start another `headrace streams --level {name}`, up to one per partition; look at the broker's disk",
            )


def _dispatchers(facts: Facts) -> Iterator[Finding]:
    if facts.missing_topics:
        return
    if not facts.dispatchers:
        waiting = sum(one.flow.waiting for one in facts.work)
        waits = f"; {_count(waiting, 'task')} wait" if waiting else ""
        yield Finding(
            "problem",
            "dispatcher_stopped",
            "dispatcher",
            f"no heartbeat from any dispatcher in the last {facts.watched_s:.0f} s{waits}",
            "start `headrace dispatcher`, or read its log",
        )
        return
    for one in facts.dispatchers:
        if one.upstreams_up == 0 or (one.troubles and "does not answer" in one.troubles):
            yield Finding(
                "problem",
                "upstream_down",
                one.name,
                one.troubles or "no upstream model server answers",
                "start the model server, or correct upstream.urls; tasks wait until their deadline",
            )
        elif one.troubles:
            yield Finding(
                "problem",
                "upstream_rate_limited",
                one.name,
                one.troubles,
                "wait, or add an upstream; a lower dispatcher.concurrency keeps below its limit",
            )


def _queues(facts: Facts) -> Iterator[Finding]:
    waiting = dict.fromkeys((queue["name"] for queue in facts.queues), 0)
    for one in facts.work:
        waiting[one.queue] = waiting.get(one.queue, 0) + one.flow.waiting
    for pulled in facts.pulled:
        waiting[pulled.queue] = waiting.get(pulled.queue, 0) + pulled.waiting
    paused = {queue["name"] for queue in facts.queues if queue["paused"]}
    for name in sorted(paused):
        held = waiting[name]
        yield Finding(
            "problem" if held else "note",
            "queue_paused",
            name,
            f"queue {name} is paused" + (f"; {_count(held, 'task')} wait" if held else ""),
            f"`headrace queues resume {name}` resumes it",
        )
    limits = {queue["name"]: queue["concurrency"] for queue in facts.queues}
    able = any(one.upstreams_up for one in facts.dispatchers)
    for one in facts.work:
        if one.queue not in paused and facts.dispatchers:
            yield from _queue(one, limits.get(one.queue), able=able)


def _queue(one: QueueFlow, limit: int | None, *, able: bool) -> Iterator[Finding]:
    queue, flow = f"{one.queue} ({level_name(one.level)})", one.flow
    waits = f"{_count(flow.waiting, 'task')} of {queue} wait"
    if flow.oldest_ms is not None:
        waits += f", the oldest for {_span(flow.oldest_ms)}"
    if not one.readers:
        yield Finding(
            "problem",
            "no_consumer",
            one.queue,
            f"no dispatcher reads queue {queue}" + (f"; {waits}" if flow.waiting else ""),
            "look for consumer_failed in the dispatchers' logs, and check that they are authorized to read the topic",
        )
    elif flow.growing and able:
        busy = f"its concurrency is {limit} per dispatcher" if limit is not None else "all slots may be busy"
        step = f"`headrace queues set {one.queue} --concurrency N`" if limit is not None else "raise upstream capacity"
        yield Finding(
            "problem",
            "lag_growing",
            one.queue,
            f"{waits}: {flow.arrived} came and {flow.read} were received during the observation; {busy}",
            f"{step}, or start another `headrace dispatcher`",
        )
    elif _stands_still(flow) and able:
        yield Finding(
            "problem",
            "queue_stands_still",
            one.queue,
            f"{waits} and none was received during the observation",
            "the running calls may be long: `headrace workers list` shows them; else read the dispatchers' logs",
        )


def _stands_still(flow: QueueThroughput) -> bool:
    return flow.waiting > 0 and flow.read == 0 and (flow.oldest_ms or 0) > STILL_MS


def _full(facts: Facts) -> Iterator[Finding]:
    paused = {queue["name"] for queue in facts.queues if queue["paused"]}
    for one in facts.backlogs:
        if one.limit and one.waiting >= one.limit:
            step = f"`headrace queues resume {one.queue}`" if one.queue in paused else "raise upstream capacity"
            yield Finding(
                "problem",
                "queue_full",
                one.queue,
                f"queue {one.queue} ({level_name(one.level)}) is full: {one.waiting:,} of {one.limit:,} wait, and "
                "further tasks are refused with 429",
                f"{step}; `headrace queues set {one.queue} --max-depth N` lets more wait",
            )


def _pulled(facts: Facts) -> Iterator[Finding]:
    paused = {queue["name"] for queue in facts.queues if queue["paused"]}
    for one in facts.pulled:
        if one.waiting and not one.held and one.oldest_ms > STILL_MS and one.queue not in paused:
            yield Finding(
                "problem",
                "no_worker",
                one.queue,
                f"{_count(one.waiting, 'task')} of {one.queue} ({level_name(one.level)}) wait, the oldest for "
                f"{_span(one.oldest_ms)}, and no worker holds any",
                "start a worker that pulls from this queue; dispatchers do not serve it",
            )


def _callbacks(facts: Facts) -> Iterator[Finding]:
    flow = facts.callbacks
    if flow.waiting > CALLBACKS_WAITING and flow.growing:
        yield Finding(
            "problem",
            "callbacks_behind",
            "webhooks",
            f"{_count(flow.waiting, 'result')} wait for the callback sender",
            "start another `headrace dispatcher --component webhooks`",
        )


def _clocks(facts: Facts) -> Iterator[Finding]:
    for one in facts.skews:
        if abs(one.ms) > SKEW_MS:
            way = "ahead of" if one.ms > 0 else "behind"
            yield Finding(
                "problem",
                "clock_skew",
                one.who,
                f"the clock of {one.who} is {_span(abs(one.ms))} {way} the one here: deadlines and leases are off",
                "synchronise the clocks of all machines with NTP",
            )


def _disks(facts: Facts) -> Iterator[Finding]:
    for disk in facts.disks:
        if _is_full(disk):
            yield Finding(
                "problem",
                "disk_full",
                disk.path,
                f"{disk.free_bytes / (1 << 30):.1f} of {disk.total_bytes / (1 << 30):.1f} GiB are free at {disk.path}",
                "free disk space: a broker on a full disk rejects writes, and local state cannot be stored",
            )


def _is_full(disk: Disk) -> bool:
    return disk.free_bytes < min(MIN_FREE_BYTES, disk.total_bytes * MIN_FREE * 4) or (
        disk.free_bytes < disk.total_bytes * MIN_FREE and disk.free_bytes < 10 * MIN_FREE_BYTES
    )


def _dead_letters(facts: Facts) -> Iterator[Finding]:
    if facts.dead_letters:
        yield Finding(
            "note",
            "dead_letters",
            "dead-letters",
            f"{_count(facts.dead_letters, 'record')} dead-lettered in the last hour",
            "`headrace dead-letters list` shows the reasons",
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _span(ms: int) -> str:
    seconds = ms / 1000
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
