"""Bodies that do not fit a record: streamed from the object store to the upstream, and back into it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.simulator import Simulator
from core.blobs import open_blobs
from core.settings import Settings
from dispatcher.spoken import Spoken
from schemas.parts import Blob
from tests.support.dispatcher_probe import DispatcherProbe, dispatching
from tests.support.waiting import eventually_async

FORM = "multipart/form-data; boundary=edge"


def form(content: bytes, **fields: str) -> bytes:
    parts = [
        f'--edge\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return b"".join([*parts, head, content, b"\r\n--edge--\r\n"])


async def stored(settings: Settings, data: bytes, name: str = "tasks/one") -> Blob:
    return await open_blobs(settings).put(data, name=name, media_type=FORM)


def kept(folder: Path) -> list[str]:
    return [path.name for path in (folder / "objects" / "results").glob("*")]


async def test_a_large_form_arrives_at_the_upstream_as_it_was_stored(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    sent = form(bytes(range(256)) * 20_000, model="m", response_format="srt")
    form_work = {"data": None, "data_ref": await stored(settings, sent), "content_type": FORM}
    async with dispatching(settings):
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
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    data = form(b"x" * 2_000_000, model="m")
    changed = await stored(settings, data, "tasks/changed")
    await stored(settings, data.replace(b"xx", b"xy", 1), "tasks/changed")
    gone = {**await stored(settings, data), "uri": "tasks/gone"}
    async with dispatching(settings):
        for reference in (changed, gone):
            work = {"data": None, "data_ref": reference, "content_type": FORM, "timeout_s": 15}
            outcome = await probe.outcome(await probe.submit(endpoint="/v1/audio/transcriptions", **work))
            assert (outcome["error_code"], outcome["retriable"]) == ("body_missing", False)
    assert sim.stats.arrivals == 0


async def test_a_large_answer_is_found_again_with_its_usage(
    probe: DispatcherProbe, settings: Settings, tmp_path: Path
) -> None:
    async with dispatching(settings):
        outcome = await probe.outcome(await probe.submit(sim={"size": 3_000_000}))
    assert outcome["body_ref"] is not None
    assert outcome["usage"] is not None
    assert outcome["usage"]["total_tokens"] > 0
    answer = await open_blobs(settings).get(outcome["body_ref"])
    assert len(answer) == 3_000_000
    assert len(kept(tmp_path)) == 1


async def test_a_call_that_is_made_again_leaves_the_first_answer_as_it_was(
    probe: DispatcherProbe, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(sim={"size": 700_000})
        first = await probe.outcome(task_id)
    # The first was frozen before it spoke, say: the next one reads the record again and has heard nothing of it.
    monkeypatch.setattr(Spoken, "__contains__", lambda *_: False)
    async with dispatching(settings):
        await probe.submit(sim={"size": 700_001}, task_id=task_id)
        await probe.ended_again(task_id)
    assert first["body_ref"] is not None
    assert len(await open_blobs(settings).get(first["body_ref"])) == 700_000


async def test_nothing_is_kept_of_an_answer_that_broke_off_or_is_too_large(
    probe: DispatcherProbe, settings: Settings, tmp_path: Path
) -> None:
    small = settings.model_copy(
        update={"dispatcher": settings.dispatcher.model_copy(update={"max_answer_bytes": 1_000_000})}
    )
    async with dispatching(small):
        for sim, code in (
            ({"size": 2_000_000}, "answer_too_large"),
            ({"size": 900_000, "fault": "half_body"}, "upstream_cut"),
        ):
            assert (await probe.outcome(await probe.submit(sim=sim)))["error_code"] == code
    assert kept(tmp_path) == []


async def test_the_text_of_a_large_stream_is_kept_whole(
    probe: DispatcherProbe, settings: Settings, sim: Simulator
) -> None:
    async with dispatching(settings):
        task_id = await probe.submit(mode="streaming", sim={"size": 3_000_000, "tokens": 20})
        outcome = await probe.outcome(task_id)
        await eventually_async(lambda: len(probe.chunks[task_id]) == outcome["chunks"], what="all chunks")
    assert outcome["body_ref"] is not None
    frames = [frame for chunk in probe.chunks[task_id] for frame in chunk["frames"]]
    text = b"".join(b"data: %b\n\n" % frame for frame in frames) + b"data: [DONE]\n\n"
    assert await open_blobs(settings).get(outcome["body_ref"]) == text
