"""The stamp on our own task records: made with a secret, and believed by all who have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core.kafka.record_signature import SIGNATURE_HEADER, RecordSigner
from core.settings.models import Settings
from schemas.codec import TASK
from schemas.headers import headers
from streams.intake.decode import InvalidRecord, Submission, read_task
from streams.intake.gateway import trust_policy_from
from tests.support.records import task, task_id

ONE, TWO = "the-first-secret-of-two", "the-other-secret-of-two"


def settings(*secrets: str) -> Settings:
    return Settings.model_validate({"direct": {"secrets": list(secrets)}})


def written(stamp: RecordSigner, **changes: Any) -> tuple[bytes, list[tuple[str, bytes]]]:
    one = task_id(partition=0)
    value = TASK.encode(task(id=one, owner="key-of-somebody", **changes))
    described = headers(kind="task", ce_id=one, at_ms=1)
    return value, stamp.headers(value, described) if stamp.signs("headrace.tasks.online") else described


def read(value: bytes, told: list[tuple[str, bytes]], *secrets: str) -> Submission | InvalidRecord:
    message = SimpleNamespace(
        topic="t", partition=0, offset=1, timestamp=1_795_000_000.0, key=None, value=value, headers=told
    )
    return read_task(message, level=0, max_bytes=1_048_576, trust=trust_policy_from(settings(*secrets)))


def test_without_a_secret_nothing_is_stamped_and_the_form_counts() -> None:
    value, told = written(RecordSigner(settings()))
    assert SIGNATURE_HEADER not in dict(told)
    found = read(value, told)
    assert isinstance(found, Submission)
    assert not found.direct


def test_a_stamp_of_any_of_the_secrets_is_believed() -> None:
    value, told = written(RecordSigner(settings(ONE, TWO)))
    assert len(dict(told)[SIGNATURE_HEADER]) == 64
    for secrets in ((ONE,), (TWO, ONE)):
        found = read(value, told, *secrets)
        assert isinstance(found, Submission)
        assert not found.direct
    assert isinstance(read(value, told, TWO), InvalidRecord)


def test_an_imitation_is_validated_like_any_other_record() -> None:
    value, told = written(RecordSigner(settings()))
    other, stamped = written(RecordSigner(settings(ONE)), trace_id="other")
    for forged in (
        told,
        [*told, (SIGNATURE_HEADER, b"")],
        [*told, (SIGNATURE_HEADER, dict(stamped)[SIGNATURE_HEADER])],
    ):
        found = read(value, forged, ONE)
        assert isinstance(found, InvalidRecord)
        assert found.field == "owner"
    assert isinstance(read(other, stamped, ONE), Submission)


def test_only_records_in_our_form_are_stamped_and_only_once() -> None:
    stamp = RecordSigner(settings(ONE))
    assert stamp.signs("headrace.tasks.offline")
    assert not stamp.signs("headrace.results.online")
    theirs = [("x-owner", b"somebody")]
    assert stamp.headers(b"value", theirs) is theirs
    value, told = written(stamp)
    assert stamp.headers(value, told) is told
    assert stamp.headers(None, told) is told


def test_a_secret_is_long() -> None:
    with pytest.raises(ValueError, match="16 characters"):
        settings("short")
