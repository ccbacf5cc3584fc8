"""When the path to a model counts as working."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from core.settings.models import KafkaSettings, Settings
from ingress.read_model.cluster_liveness import ClusterLiveness
from schemas.codec import CONTROL
from schemas.records import Control

NOW = 1_000_000
TP = TopicPartition("headrace.controls", 0)


def pulse_of(level: int, **changes: Any) -> Control:
    worker = {"name": "w", "seen_ms": NOW, "running": 0, "upstreams_up": 1}
    base: Control = {
        "kind": "pulse",
        "at_ms": NOW,
        "level": level,
        "id": "",
        "reason": None,
        "scheduler": f"s{level}",
        "partitions": [0, 1, 2],
        "workers": [worker],
    }
    return {**base, **changes}  # type: ignore[typeddict-item]


def missing(*controls: Control, at_ms: int = NOW) -> list[str]:
    pulse = ClusterLiveness(Settings(kafka=KafkaSettings(partitions=3)), name="test")
    pulse.feed(TP, [record(CONTROL.encode(control)) for control in controls])
    return pulse.missing(at_ms)


def record(value: bytes | None) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord("t", 0, 0, 0, 0, b"k", value, 0, 1, 1, ())


def test_all_is_well() -> None:
    assert missing(pulse_of(0), pulse_of(1)) == []


def test_two_schedulers_may_share_a_lane() -> None:
    halves = [pulse_of(0, scheduler="a", partitions=[0, 2]), pulse_of(0, scheduler="b", partitions=[1])]
    assert missing(*halves, pulse_of(1)) == []


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ([], ["online scheduler", "offline scheduler", "dispatcher"]),
        ([pulse_of(0)], ["offline scheduler"]),
        ([pulse_of(0, partitions=[1]), pulse_of(1)], ["online scheduler serves partition 0, 2"]),
        ([pulse_of(0, partitions=[]), pulse_of(1)], ["online scheduler serves partition 0, 1, 2"]),
        ([pulse_of(0, workers=[]), pulse_of(1, workers=[])], ["dispatcher"]),
        ([pulse_of(0), pulse_of(1, at_ms=NOW - 10_001)], ["offline scheduler"]),
    ],
)
def test_what_lacks_is_said(controls: list[Control], words: list[str]) -> None:
    lacking = missing(*controls)
    assert len(lacking) == len(words)
    for sentence, part in zip(lacking, words, strict=True):
        assert part in sentence


def test_a_worker_without_an_upstream_is_not_enough() -> None:
    idle = [{"name": "w", "seen_ms": NOW, "running": 0, "upstreams_up": 0}]
    assert "upstream" in missing(pulse_of(0, workers=idle), pulse_of(1, workers=idle))[0]


def test_the_newest_word_counts_whoever_passed_it_on() -> None:
    old = [{"name": "w", "seen_ms": NOW - 5, "running": 0, "upstreams_up": 0}]
    assert missing(pulse_of(0), pulse_of(1, workers=old)) == []


def test_silence_of_ten_seconds_is_death() -> None:
    assert len(missing(pulse_of(0), pulse_of(1), at_ms=NOW + 10_001)) == 3


def test_stray_records_are_passed_over() -> None:
    pulse = ClusterLiveness(Settings(kafka=KafkaSettings(partitions=3)), name="test")
    pulse.feed(TP, [record(None), record(b"nonsense"), record(CONTROL.encode(pulse_of(0)))])
    assert len(pulse.missing(NOW)) == 1
