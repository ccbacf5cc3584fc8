"""What doctor makes of the facts: the right name for what is stuck, and the next step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.diagnostics.facts import (
    ClockSkew,
    Disk,
    Facts,
    Finding,
    PullQueueFacts,
    QueueFlow,
    QueueThroughput,
    SchedulerSeen,
    WorkerSeen,
)
from core.diagnostics.rules import findings
from core.drain_rate import Backlog
from core.kafka.partition_counts import PartitionCount
from tests.support.records import queue

WORKER = WorkerSeen("w1", 0, 1, None)
SLOW = QueueThroughput(waiting=9, oldest_ms=90_000)
WELL = Facts(
    kafka="k:9092",
    partitions=2,
    queues=[queue("q")],
    work=[QueueFlow("q", level, QueueThroughput(), 1) for level in (0, 1)],
    levels={0: QueueThroughput(), 1: QueueThroughput()},
    schedulers=[SchedulerSeen("s0", 0, (0, 1)), SchedulerSeen("s1", 1, (0,)), SchedulerSeen("s2", 1, (1,))],
    dispatchers=[WORKER],
    skews=[ClockSkew("w1", 300)],
    disks=[Disk("/data", 50 << 30, 100 << 30)],
    watched_s=3,
)


def of(**changes: Any) -> list[Finding]:
    return findings(replace(WELL, **changes))


def test_nothing_is_found_where_all_is_well() -> None:
    assert of() == []


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"broker_error": "no Kafka broker answers at k:9092"}, "broker_unreachable", "no Kafka broker answers"),
        ({"missing_topics": ["a", "b", "c", "d", "e", "f", "g"]}, "topics_missing", "a, b, c, d, e and 2 more"),
        ({"missing_work": ["work.q.online"]}, "work_topics_missing", "there is no topic work.q.online"),
        ({"partition_counts": [PartitionCount("work.q.online", 1, 3)]}, "topic_width", "has 1 partitions and needs 3"),
        (
            {"partition_counts": [PartitionCount("tasks.online", 3, 2, foreign=True)], "unread": {"tasks.online": 7}},
            "topic_width",
            "records in partitions 2 and above are not read; 7 records there",
        ),
        ({"wrong_setting": "kafka.partitions is 2, but"}, "partitions_setting", "kafka.partitions is 2"),
        (
            {"unreadable": {"tasks.online": "zstd"}},
            "compression_unreadable",
            "compression.type zstd, which is not read",
        ),
        (
            {"schedulers": WELL.schedulers[1:]},
            "scheduler_stopped",
            "no heartbeat from the online scheduler in the last 3 s",
        ),
        ({"schedulers": WELL.schedulers[:2]}, "partitions_unserved", "no offline scheduler serves partition 1"),
        (
            {"levels": {0: QueueThroughput(5, 9, 1, 20_000)}},
            "scheduler_behind",
            "5 records and 20 s behind and falls further",
        ),
        ({"dispatchers": []}, "dispatcher_stopped", "no heartbeat from any dispatcher"),
        ({"dispatchers": [WORKER._replace(upstreams_up=0)]}, "upstream_down", "no upstream model server answers"),
        ({"dispatchers": [WORKER._replace(troubles="u does not answer")]}, "upstream_down", "u does not answer"),
        ({"dispatchers": [WORKER._replace(troubles="u asked")]}, "upstream_rate_limited", "u asked"),
        ({"work": [QueueFlow("q", 0, QueueThroughput(), 0)]}, "no_consumer", "no dispatcher reads queue q (online)"),
        ({"work": [QueueFlow("q", 0, QueueThroughput(9, 8, 2), 1)]}, "lag_growing", "8 came and 2 were received"),
        ({"work": [QueueFlow("q", 0, SLOW, 1)]}, "queue_stands_still", "9 tasks of q (online) wait, the oldest for 90"),
        (
            {"pulled": [PullQueueFacts("q", 1, 2, 0, 7_300_000)]},
            "no_worker",
            "2 tasks of q (offline) wait, the oldest for 2 h",
        ),
        ({"backlogs": [Backlog("q", 1, 1_000, 1_000)]}, "queue_full", "queue q (offline) is full: 1,000 of 1,000 wait"),
        ({"callbacks": QueueThroughput(2_000, 9, 1)}, "callbacks_behind", "2,000 results wait"),
        ({"skews": [ClockSkew("w2", -60_000)]}, "clock_skew", "the clock of w2 is 60 s behind the one here"),
        ({"disks": [Disk("/d", 1 << 29, 100 << 30)]}, "disk_full", "0.5 of 100.0 GiB are free at /d"),
        ({"ingress": ["the read model has not caught up yet"]}, "ingress", "the read model has not caught up yet"),
        ({"queues": [queue("q", paused=True)], "work": [QueueFlow("q", 0, SLOW, 1)]}, "queue_paused", "9 tasks wait"),
    ],
    ids=str,
)
def test_each_trouble_has_its_name_and_a_next_step(changes: dict[str, Any], code: str, words: str) -> None:
    [found] = of(**changes)
    assert (found.weight, found.code) == ("problem", code)
    assert words in found.what
    assert found.next_step


def test_a_queue_with_room_is_not_full_and_a_paused_one_is_to_be_resumed() -> None:
    assert of(backlogs=[Backlog("q", 0, 999, 1_000), Backlog("r", 0, 5, 0)]) == []
    paused, full = of(
        queues=[queue("q", paused=True)], backlogs=[Backlog("q", 0, 7, 5)], work=[QueueFlow("q", 0, SLOW, 1)]
    )
    assert (paused.code, full.code) == ("queue_paused", "queue_full")
    assert full.next_step.startswith("`headrace queues resume q`; `headrace queues set q --max-depth N`")


def test_a_topic_that_was_extended_and_works_is_a_note() -> None:
    [found] = of(partition_counts=[PartitionCount("chunks", 3, 2)])
    assert (found.weight, found.code, found.subject) == ("note", "topic_width", "chunks")


def test_what_is_not_stuck_is_a_note_and_comes_last() -> None:
    assert [(one.weight, one.code) for one in of(queues=[queue("q", paused=True)])] == [("note", "queue_paused")]
    [held] = of(held={"tasks.online/1": 3})
    assert (held.weight, held.code) == ("note", "transaction_open")
    assert held.what == "3 records of tasks.online/1 wait for the end of a transaction"
    found = of(dead_letters=1, schedulers=[])
    assert [one.weight for one in found] == ["problem", "problem", "note"]
    assert found[-1].what == "1 record dead-lettered in the last hour"


def test_one_cause_is_reported_once() -> None:
    waiting = [QueueFlow(name, 0, SLOW, 0) for name in ("q", "r", "s")]
    [found] = of(dispatchers=[], work=waiting)
    assert found.what.endswith("; 27 tasks wait")
    down = of(dispatchers=[WORKER._replace(upstreams_up=0)], work=[QueueFlow("q", 0, QueueThroughput(9, 8, 2), 1)])
    assert [one.code for one in down] == ["upstream_down"], "no lag of its own"
