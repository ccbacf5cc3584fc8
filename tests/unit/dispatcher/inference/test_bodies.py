"""Calls while the object store is unavailable or has lost a body."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings.models import Settings
from core.storage.blobs import BlobStore, open_blobs
from dispatcher.inference import bodies as module
from dispatcher.inference.bodies import BodyStore
from dispatcher.inference.outcome import Failure
from dispatcher.inference.upstream import CallError
from schemas.common import Blob
from tests.support.dispatcher_doubles import work

LARGE = b'{"usage":{"total_tokens":3}}' + b" " * 600_000


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY_S", 0)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs(Settings(data_dir=tmp_path))


@pytest.fixture
def bodies(blobs: BlobStore) -> BodyStore:
    return BodyStore(blobs, inline_bytes=1_000)


async def test_a_work_record_without_a_body_cannot_be_called(bodies: BodyStore) -> None:
    with pytest.raises(CallError) as caught:
        bodies.request(work(data=None))
    assert caught.value.failure is Failure.BODY_LOST


async def test_a_request_body_is_opened_again_for_every_call(bodies: BodyStore, blobs: BlobStore) -> None:
    inline = bodies.request(work(data=b"{}"))
    assert (inline.size, await inline.open()) == (2, b"{}")
    blob = await blobs.put(LARGE, name="tasks/one", media_type="application/json")
    stored = bodies.request(work(data=None, data_ref=blob))
    assert stored.size == len(LARGE)
    for _ in range(2):
        pieces = await stored.open()
        assert not isinstance(pieces, bytes)
        assert b"".join([piece async for piece in pieces]) == LARGE
    assert stored.failure is None


async def test_a_request_that_is_not_there_or_wrong_is_lost(bodies: BodyStore, blobs: BlobStore) -> None:
    blob = await blobs.put(LARGE, name="tasks/one", media_type="application/json")
    short: Blob = {**blob, "size": 3}
    gone: Blob = {**blob, "uri": "tasks/two"}
    for reference in (short, gone):
        with pytest.raises(CallError) as caught:
            await bodies.request(work(data=None, data_ref=reference)).open()
        assert caught.value.failure is Failure.BODY_LOST


async def test_what_goes_wrong_while_a_request_is_sent_is_noted(bodies: BodyStore, blobs: BlobStore) -> None:
    """The HTTP client reports a broken connection only; the task must not be retried for that."""
    blob = await blobs.put(LARGE, name="tasks/one", media_type="application/json")
    stored = bodies.request(work(data=None, data_ref={**blob, "sha256": "0" * 64}))
    pieces = await stored.open()
    assert not isinstance(pieces, bytes)
    with pytest.raises(Exception, match="digest"):
        [piece async for piece in pieces]
    assert stored.failure is not None
    assert stored.failure.failure is Failure.BODY_LOST


async def test_an_answer_that_the_store_does_not_take_is_a_failure_that_may_pass(
    bodies: BodyStore, tmp_path: Path
) -> None:
    (tmp_path / "objects" / "results").write_bytes(b"a file where a folder is needed")
    answer = bodies.response(work(), media_type="application/json")
    with pytest.raises(CallError) as caught:
        await _take(answer)
    assert caught.value.failure is Failure.STORAGE


async def _take(answer: module.ResponseBody) -> None:
    await answer.write(LARGE)
    await answer.finish()


async def test_names_of_two_runs_of_one_attempt_differ(bodies: BodyStore) -> None:
    names = set()
    for _ in range(2):
        answer = bodies.response(work(), media_type="application/json")
        await answer.write(LARGE)
        kept = await answer.finish()
        assert kept.body_ref is not None
        assert kept.usage is not None
        assert kept.usage["total_tokens"] == 3
        names.add(kept.body_ref["uri"])
    assert len(names) == 2
