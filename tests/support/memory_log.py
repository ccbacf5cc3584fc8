"""The durable state of a scheduler, in memory: state records and results of transactions."""

from __future__ import annotations

from schemas.codec import RESULT, STATUS
from schemas.records import Result, Status
from streams.state_machine.rows import TaskRules
from streams.transaction import StateKey, Transaction


class Log:
    """The durable side of a scheduler: rows and the results that were written."""

    def __init__(self) -> None:
        self.rows: dict[StateKey, bytes] = {}
        self.results: list[Result] = []
        self.held: dict[tuple[int, str], set[str]] = {}

    def transaction(
        self, *, now_ms: int = 5_000, known: dict[StateKey, tuple[int, Result]] | None = None, work_partitions: int = 4
    ) -> Transaction:
        """Begin a batch."""
        return Transaction(
            level=0,
            rules=TaskRules(),
            now_ms=now_ms,
            prefix="t.",
            row=lambda partition, key: self.rows.get((partition, key.decode())),
            known_results=known or {},
            work_partitions=lambda _: work_partitions,
            holders=lambda partition, worker: set(self.held.get((partition, worker), ())),
        )

    def commit(self, transaction: Transaction) -> None:
        """Make a batch durable."""
        for home, row in transaction.rows.items():
            if row is None:
                self.rows.pop(home, None)
            else:
                self.rows[home] = STATUS.encode(row)
        self.results += [RESULT.decode(one.record.value) for one in transaction.results.values() if one.record]  # type: ignore[arg-type]

    def row(self, task_id_: str, partition: int = 0) -> Status:
        """Return a row."""
        return STATUS.decode(self.rows[partition, task_id_])
