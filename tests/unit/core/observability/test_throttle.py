"""A library that repeats itself is heard once in a while; we ourselves always."""

from __future__ import annotations

import logging

from core.observability.logs import THROTTLE_S, Throttle
from tests.support.clocks import SecondClock


def line(name: str, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, message, values, None)


def test_a_kind_of_line_is_logged_once_per_interval_with_a_count() -> None:
    clock = SecondClock()
    throttle = Throttle(("aiokafka",), clock=clock)
    assert throttle.filter(line("aiokafka.conn", "no node %s", 1))
    assert not throttle.filter(line("aiokafka.conn", "no node %s", 2))
    assert not throttle.filter(line("aiokafka.conn", "no node %s", 3))
    assert throttle.filter(line("aiokafka.conn", "something else"))
    clock.now_s += THROTTLE_S
    told = line("aiokafka.conn", "no node %s", 4)
    assert throttle.filter(told)
    assert told.getMessage() == "no node 4 (2 similar lines suppressed)"
    clock.now_s += THROTTLE_S
    told = line("aiokafka.conn", "no node %s", 5)
    assert throttle.filter(told)
    assert told.getMessage() == "no node 5"


def test_what_we_say_is_never_held_back() -> None:
    throttle = Throttle(("aiokafka",), clock=SecondClock())
    assert all(throttle.filter(line("ingress.main", "again")) for _ in range(3))
    assert all(throttle.filter(line("aiokafkaesque", "again")) for _ in range(3))
