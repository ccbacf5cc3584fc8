"""Lines of Kafka clients about what passes by itself are no errors, until it lasts."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import aiokafka
import pytest
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    TopicAuthorizationFailedError,
)

from core.observability.transient_errors import PERSISTENT_S, QUIET_S, TRANSIENT, TransientErrors
from tests.support.clocks import SecondClock

GROUP = "aiokafka.consumer.group_coordinator"
CLUSTER = "aiokafka.cluster"


def line(
    name: str, message: str, *values: object, level: int = logging.ERROR, error: BaseException | None = None
) -> logging.LogRecord:
    raised = (type(error), error, None) if error is not None else None
    return logging.LogRecord(name, level, "", 0, message, values, raised)


def level_of(passing: TransientErrors, record: logging.LogRecord) -> str:
    assert passing.filter(record)
    assert logging.getLevelName(record.levelno) == record.levelname
    return record.levelname


@pytest.mark.parametrize(
    "record",
    [
        line(GROUP, "Group Coordinator Request failed: %s", GroupCoordinatorNotAvailableError()),
        line(GROUP, "Error sending %s to node %s [%s] -- marking coordinator dead", "x", 1, NodeNotReadyError()),
        line(GROUP, "Heartbeat send request failed: %s. Will retry.", KafkaConnectionError()),
        line(GROUP, "Marking the coordinator dead (node %s)for group %s.", 1, "g", level=logging.WARNING),
        line(GROUP, "OffsetCommit failed for group %s due to group error (%s), will rejoin", "g", "rebalancing"),
        line(CLUSTER, "Topic %s not found in cluster metadata", "t"),
        line(CLUSTER, "Error fetching metadata for topic %s: %s", "t", GroupLoadInProgressError),
        line("aiokafka", "Unable connect to node with id %s: %s", 1, ConnectionRefusedError()),
        line(
            "aiokafka.producer.sender",
            "Got error produce response on topic-partition %s, retrying. Error: %s",
            "t",
            NotLeaderForPartitionError,
            level=logging.WARNING,
        ),
    ],
)
def test_transient_errors_are_logged_as_info(record: logging.LogRecord) -> None:
    assert level_of(TransientErrors(), record) == "INFO"


@pytest.mark.parametrize(
    "record",
    [
        line(CLUSTER, "Topic %s is not authorized for this client", "t"),
        line(CLUSTER, "Error fetching metadata for topic %s: %s", "t", TopicAuthorizationFailedError),
        line(GROUP, "Unexpected error in coordinator routine", error=KafkaConnectionError()),
        line(GROUP, "Heartbeat session expired - marking coordinator dead"),
        line("dispatcher.group_consumer", "failed: %s", GroupCoordinatorNotAvailableError()),
        line("aiokafkaesque", "Topic %s not found in cluster metadata", "t"),
    ],
)
def test_what_does_not_pass_and_what_others_say_stays_an_error(record: logging.LogRecord) -> None:
    assert level_of(TransientErrors(), record) == "ERROR"


def test_what_lasts_is_an_error_and_so_is_it_again_after_a_quiet_time() -> None:
    clock = SecondClock()
    passing = TransientErrors(clock=clock)

    def told() -> str:
        return level_of(passing, line(CLUSTER, "Topic %s not found in cluster metadata", "t"))

    assert told() == "INFO"
    clock.now_s += PERSISTENT_S - 1
    assert told() == "INFO"
    clock.now_s += 1
    assert told() == "ERROR"
    assert level_of(passing, line(CLUSTER, "Unable to update metadata from %s", [1])) == "INFO", "another kind"
    new_queue = line(CLUSTER, "Topic %s not found in cluster metadata", "of a queue that is new")
    assert level_of(passing, new_queue) == "INFO", "another topic"
    clock.now_s += QUIET_S + 1
    assert told() == "INFO", "another event"


def test_it_is_not_logged_below_the_log_level() -> None:
    passing = TransientErrors(logging.WARNING)
    assert not passing.filter(line(CLUSTER, "Topic %s not found in cluster metadata", "t"))
    assert passing.filter(line(CLUSTER, "Topic %s is not authorized for this client", "t"))


def test_the_client_still_has_these_lines() -> None:
    assert set(_texts(Path(aiokafka.__file__).parent)) >= TRANSIENT


def _texts(package: Path) -> Iterator[str]:
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
