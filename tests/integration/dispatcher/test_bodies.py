"""Bodies that do not fit a record: streamed from the object store to the upstream, and back into it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from core.settings.models import Settings
from core.storage.blobs import open_blobs
from schemas.common import Blob
from tests.support.dispatcher_probe import DispatcherProbe
from tests.support.held_upstream import HeldUpstream
from tests.support.waiting import eventually_async

FORM = "multipart/form-data; boundary=edge"
LARGEST = 4_000_000

pytestmark = pytest.mark.usefixtures("dispatcher")


@pytest.fixture(scope="module")
def changes(changes: dict[str, object]) -> dict[str, object]:
    """Allow no larger answers than a test can make."""
    return {**changes, "dispatcher__max_answer_bytes": LARGEST}


def form(content: bytes, **fields: str) -> bytes:
    parts = [
        f'--edge\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return b"".join([*parts, head, content, b"\r\n--edge--\r\n"])


async def stored(settings: Settings, data: bytes, name: str = "tasks/one") -> Blob:
    return await open_blobs(settings).put(data, name=name, media_type=FORM)


def stored_answers(folder: Path) -> set[str]:
    return {path.name for path in (folder / "objects" / "results").glob("*")}


async def test_a_large_form_arrives_at_the_upstream_as_it_was_stored(
    probe: DispatcherProbe, settings: Settings, sim: HeldUpstream
) -> None:
    sent = form(bytes(range(256)) * 20_000, model="m", response_format="srt")
    form_work = {"data": None, "data_ref": await stored(settings, sent), "content_type": FORM}
    outcome = await probe.outcome(await probe.submit(endpoint="/v1/audio/transcriptions", **form_work))
    assert outcome["status_code"] == 200
    assert outcome["content_type"].startswith("text/plain")
    assert outcome["body"] is not None
    assert outcome["body"].startswith(b"1\n00:00:00,000 --> ")
    request = sim.recent[-1]
    assert hashlib.sha256(request.body).digest() == hashlib.sha256(sent).digest()
    assert request.headers["content-length"] == str(len(sent))
    assert "transfer-encoding" not in request.headers
    assert request.headers["content-type"] == FORM
    assert request.headers["accept"] == "*/*"


async def test_a_body_that_is_not_what_was_stored_is_never_sent_whole(
    probe: DispatcherProbe, settings: Settings, sim: HeldUpstream
) -> None:
    data = form(b"x" * 2_000_000, model="m")
    changed = await stored(settings, data, "tasks/changed")
    await stored(settings, data.replace(b"xx", b"xy", 1), "tasks/changed")
    gone = {**await stored(settings, data), "uri": "tasks/gone"}
    for reference in (changed, gone):
        work = {"data": None, "data_ref": reference, "content_type": FORM}
        outcome = await probe.outcome(await probe.submit(endpoint="/v1/audio/transcriptions", **work))
        assert (outcome["error_code"], outcome["retriable"]) == ("body_missing", False)
    assert sim.stats.arrivals == 0


async def test_a_large_answer_goes_to_the_object_store_and_is_found_again_with_its_usage(
    probe: DispatcherProbe, settings: Settings, folder: Path
) -> None:
    before = stored_answers(folder)
    outcome = await probe.outcome(await probe.submit(sim={"size": 3_000_000}))
    blob = outcome["body_ref"]
    assert blob is not None
    assert outcome["body"] is None
    assert outcome["usage"] is not None
    assert outcome["usage"]["total_tokens"] > 0
    assert len(await open_blobs(settings).get(blob)) == 3_000_000
    assert (folder / "objects" / blob["uri"]).stat().st_size == blob["size"] == 3_000_000
    assert len(stored_answers(folder) - before) == 1


async def test_nothing_is_stored_of_an_answer_that_broke_off_or_is_too_large(
    probe: DispatcherProbe, folder: Path
) -> None:
    before = stored_answers(folder)
    for sim, code in (
        ({"size": 2 * LARGEST}, "answer_too_large"),
        ({"size": 900_000, "fault": "half_body"}, "upstream_cut"),
    ):
        assert (await probe.outcome(await probe.submit(sim=sim)))["error_code"] == code
    assert stored_answers(folder) == before


async def test_the_text_of_a_large_stream_is_stored_whole(probe: DispatcherProbe, settings: Settings) -> None:
    task_id = await probe.submit(mode="streaming", sim={"size": 3_000_000, "tokens": 20})
    outcome = await probe.outcome(task_id)
    await eventually_async(lambda: len(probe.chunks[task_id]) == outcome["chunks"], what="all chunks")
    assert outcome["body_ref"] is not None
    frames = [frame for chunk in probe.chunks[task_id] for frame in chunk["frames"]]
    text = b"".join(b"data: %b\n\n" % frame for frame in frames) + b"data: [DONE]\n\n"
    assert await open_blobs(settings).get(outcome["body_ref"]) == text
