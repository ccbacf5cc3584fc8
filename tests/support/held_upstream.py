"""An upstream whose hanging calls the test answers when it wants to, instead of after a time."""

from __future__ import annotations

from collections import Counter

from bench.simulator import Simulator
from bench.simulator.answers import Answer
from bench.simulator.behaviour import Behaviour, Fault
from bench.simulator.play import quick
from bench.wire import LAST_CHUNK, Exchange, Outcome, chunk, head

HELD = {"fault": "hang"}
"""What a request asks for that the test answers."""


class HeldUpstream(Simulator):
    """A simulator that leaves the calls which hang to the test, each by its task id."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, tuple[Exchange, Answer]] = {}
        self._sent: Counter[str] = Counter()

    def arrived(self, exchange: Exchange, behaviour: Behaviour, answer: Answer) -> None:
        """Note a call that hangs."""
        if behaviour.fault is Fault.HANG and exchange.key is not None:
            self._held[exchange.key] = exchange, answer

    @property
    def held(self) -> list[str]:
        """The tasks whose calls hang, the oldest first."""
        return [task_id for task_id, (exchange, _) in self._held.items() if exchange.outcome is None]

    def token(self, task_id: str) -> None:
        """Send the next frame of a stream, and its head with the first."""
        exchange, answer = self._held[task_id]
        start = b"" if self._sent[task_id] else head(answer.status, answer.content_type, None, extra=answer.headers)
        exchange.write(start + chunk(answer.frames[self._sent[task_id]]))
        self._sent[task_id] += 1

    def answer(self, task_id: str) -> None:
        """Send the whole answer, or the rest of a stream."""
        exchange, answer = self._held.pop(task_id)
        if sent := self._sent[task_id]:
            exchange.finish(b"".join([*map(chunk, answer.frames[sent:]), LAST_CHUNK]))
        else:
            exchange.finish(quick(answer))
        exchange.lost(Outcome.COMPLETED)  # what hung in its place is over, too
