"""What the tests wait with: looks soon and often, and does not take a standstill of the machine for time."""

from __future__ import annotations

import pytest

from tests.support import waiting
from tests.support.waiting import STANDSTILL_S, eventually


class Machine:
    """A machine that pauses by a clock of its own, and stands still for some seconds at the first pause."""

    def __init__(self, standstill_s: float) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []
        self._standstill_s = standstill_s

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds if self.pauses else seconds + self._standstill_s
        self.pauses.append(seconds)


def test_what_never_becomes_true_fails_in_time_and_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0)
    monkeypatch.setattr(waiting, "time", machine)
    with pytest.raises(AssertionError, match="the moon was not true within 5 s"):
        eventually(lambda: False, within_s=5, what="the moon")
    assert machine.now_s == pytest.approx(5, abs=waiting.POLL_S)
    assert machine.pauses[:3] == [0.001, 0.002, 0.004]
    assert max(machine.pauses) == waiting.POLL_S


def test_a_standstill_uses_up_no_more_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(3_600)
    monkeypatch.setattr(waiting, "time", machine)
    eventually(lambda: machine.now_s > 3_600 + 3, within_s=5)
    with pytest.raises(AssertionError):
        eventually(lambda: False, within_s=STANDSTILL_S / 2)


def test_without_time_there_is_one_look() -> None:
    looks: list[None] = []
    with pytest.raises(AssertionError):
        eventually(lambda: looks.append(None), within_s=0)
    eventually(lambda: True, within_s=0)
    assert len(looks) == 1
