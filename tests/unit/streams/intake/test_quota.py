"""Tasks per minute that a tenant may write to Kafka, with a controlled clock, in the intake and in the keys file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.settings.models import Settings
from core.tenants import Tenants
from ingress.auth.key_entry import from_document
from streams.intake.decode import InvalidRecord, Submission
from streams.intake.gateway import MAX_TENANTS, Quotas, TaskIntake
from tests.support.intake import NOW_S, OWNER, QueueRegistry, TransactionDouble, admit, intake, message
from tests.support.memory_log import Log

LIMIT = 2
NOW_MS = int(NOW_S * 1000)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.floats(0, 20)), max_size=120))
def test_owners_do_not_disturb_each_other(story: list[tuple[str | None, float]]) -> None:
    """What an owner gets is what it would get alone."""
    quotas, alone, now_s = Quotas(lambda _: 3), {owner: Quotas(lambda _: 3) for owner in ("a", "b", None)}, 0.0
    for owner, step in story:
        now_s += step
        assert quotas.check(owner, now_s=now_s) == alone[owner].check(owner, now_s=now_s)


def test_a_new_limit_counts_at_once_and_none_is_none() -> None:
    limits = {"a": 1, "b": 0}
    quotas = Quotas(lambda owner: limits[owner or ""])
    assert quotas.check("a", now_s=0) is None
    assert (quotas.check("a", now_s=0) or "").startswith("the limit of 1 tasks per minute for a is exceeded")
    assert not any(quotas.check("b", now_s=0) for _ in range(100))
    limits["a"] = 3
    assert quotas.check("a", now_s=0) is None


def test_names_without_end_do_not_fill_the_memory() -> None:
    quotas = Quotas(lambda _: 1)
    for number in range(2 * MAX_TENANTS):
        assert quotas.check(str(number), now_s=0) is None
    assert len(quotas._buckets) <= MAX_TENANTS


class Rows(TransactionDouble):
    """A transaction that has some tasks already."""

    def __init__(self, *known: str) -> None:
        super().__init__()
        self.known = known

    def has_task(self, _: int, task_id: str) -> bool:
        return task_id in self.known


def limited(**direct: Any) -> TaskIntake:
    owners: dict[str, Any] = {"allowed_tenants": ["*"], "default_tenant": OWNER}
    return intake(QueueRegistry("chat"), direct={**owners, "tasks_per_minute": LIMIT, **direct})


async def test_a_task_above_the_limit_becomes_a_dead_letter_and_others_are_admitted() -> None:
    made, transaction = limited(), Rows()
    for _ in range(LIMIT):
        assert isinstance(await admit(made, message(), transaction, now_ms=NOW_MS), Submission)
    found = await admit(made, message(), transaction, now_ms=NOW_MS)
    assert isinstance(found, InvalidRecord)
    assert (found.field, found.reason) == (
        "owner",
        f"the limit of 2 tasks per minute for {OWNER} is exceeded (direct.tasks_per_minute)",
    )
    named = message(headers=[("x-owner", OWNER.encode())])
    assert (await admit(made, named, transaction, now_ms=NOW_MS)) == InvalidRecord(found.reason, "x-owner")
    assert isinstance(await admit(made, message(owner="other"), transaction, now_ms=NOW_MS), Submission)
    assert isinstance(await admit(made, message(), transaction, now_ms=NOW_MS + 30_000), Submission)
    assert transaction.reasons["over_quota"] == 2


async def test_a_task_with_a_state_record_is_not_counted_again() -> None:
    made = limited()
    one = await admit(made, message(), Rows(), now_ms=NOW_MS)
    assert isinstance(one, Submission)
    for _ in range(10):
        assert isinstance(await admit(made, message(), Rows(one.task_id), now_ms=NOW_MS), Submission)
    assert isinstance(await admit(made, message(), Rows(), now_ms=NOW_MS), Submission), "none of them was counted"


async def test_a_batch_read_again_after_a_crash_comes_to_the_same_tasks() -> None:
    made, log, offsets = limited(), Log(), range(LIMIT)
    records = [message(trace_id=str(number)) for number in offsets]
    for number, record in zip(offsets, records, strict=True):
        record.offset = number
    for _ in range(3):
        transaction = log.transaction()
        for number, record in zip(offsets, records, strict=True):
            one = await admit(made, record, transaction, now_ms=NOW_MS)
            assert isinstance(one, Submission)
            transaction.submission(one, partition=0, offset=number)
        log.commit(transaction)
    assert len(log.rows) == LIMIT
    assert isinstance(await admit(made, message(), log.transaction(), now_ms=NOW_MS), InvalidRecord), (
        "the minute is used up"
    )


async def test_without_a_limit_nothing_is_counted() -> None:
    made = limited(tasks_per_minute=0)
    assert made._quotas is None
    assert isinstance(await admit(made, message(), TransactionDouble(), now_ms=NOW_MS), Submission)


def test_a_tenant_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.json", [0.0]
    tenants = {"a": {"tasks_per_minute": 7, "keys": [{"key": "sk-a"}]}, "b": {"keys": [{"key": "sk-b"}]}}
    path.write_text(json.dumps({"tenants": tenants}))
    settings = Settings.model_validate({"auth": {"keys_file": path}, "direct": {"tasks_per_minute": 5}})
    known = Tenants(settings, clock=lambda: now[0])
    assert [known.tasks_per_minute(name) for name in ("a", "b", "c", None)] == [7, 5, 5, 5]
    for changed, limit in ((0, 0), (9, 9), (True, 9), ("many", 9), (-1, 9), (10**10, 9)):
        tenants["a"]["tasks_per_minute"] = changed  # type: ignore[assignment]  # what people write
        path.write_text(json.dumps({"tenants": tenants, "n": [0] * len(str(changed)) + [now[0]]}))
        now[0] += 2
        assert known.tasks_per_minute("a") == limit, changed


@pytest.mark.parametrize("wrong", [True, -1, "many", 1.5, 10**10])
def test_a_wrong_limit_is_named_when_the_keys_file_is_read(wrong: object) -> None:
    keys = [{"key": "sk-a"}]
    assert len(from_document({"tenants": {"a": {"tasks_per_minute": 0, "keys": keys}}})) == 1
    with pytest.raises(ConfigError, match="tenant a: tasks_per_minute must be a whole number, 0 for no limit"):
        from_document({"tenants": {"a": {"tasks_per_minute": wrong, "keys": keys}}})
