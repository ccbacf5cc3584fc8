"""Forms of the OpenAI mirror, byte for byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from core.errors import RateLimited
from schemas import topics
from schemas.codec import TASK
from schemas.records import Task
from tests.support.bella import Double, answer, chunk
from tests.support.memory_ingress import Memory
from tests.support.openai import error, named, written
from tests.support.results import result_of

SPEECH = "/v1/audio/transcriptions"
TRANSLATE = "/v1/audio/translations"
EDIT = "/v1/images/edits"
INLINE, MOST = 4_096, 100_000
SMALL, LARGE = b"\0\r\n--\xff" * 100, bytes(range(256)) * 300


SETTINGS = {
    "ingress": {"max_upload_bytes": MOST, "keep_alive_s": 0.05},
    "storage": {"inline_bytes": INLINE},
}


def form(path: str = SPEECH, content: bytes = SMALL, **fields: Any) -> dict[str, Any]:
    """Return a right form of an endpoint, as httpx takes it; a field that is None is left out."""
    field, name = ("image", "a.png") if path == EDIT else ("file", "höre.mp3")
    data = {"model": "m", **({"prompt": "a mill"} if path == EDIT else {}), **fields}
    return {
        "data": {name: value for name, value in data.items() if value is not None},
        "files": [(field, (name, content))],
    }


def stored(memory: Memory) -> list[str]:
    folder = memory.settings.data_dir / "objects"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def body_of(memory: Memory, task: Task) -> bytes:
    if task["data_ref"] is None:
        assert isinstance(task["data"], bytes)
        return task["data"]
    assert task["data"] is None
    data: bytes = await memory.ingress.blobs.get(task["data_ref"])
    return data


def parts(task: Task, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return head and content of each part as the upstream finds them."""
    edge = b"--" + task["content_type"].removeprefix("multipart/form-data; boundary=").encode()
    assert body.endswith(edge + b"--\r\n")
    pieces = body.removesuffix(edge + b"--\r\n").split(edge + b"\r\n")[1:]
    return [(head, content.removesuffix(b"\r\n")) for head, _, content in (p.partition(b"\r\n\r\n") for p in pieces)]


@pytest.mark.parametrize("prefix", ["/queue", "/v1"])
@pytest.mark.parametrize("path", [SPEECH, TRANSLATE, EDIT])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["inline", "stored"])
async def test_a_form_is_passed_on_and_its_answer_is_the_upstreams(
    ingress: Double, prefix: str, path: str, content: bytes
) -> None:
    memory, client = ingress
    memory.answer = answer(body=b"1\n00:00:00,000 --> \xc3\xa9\n", content_type="text/plain; charset=utf-8")
    response = await client.post(prefix + path.removeprefix("/v1"), **form(path, content, language="de"))
    assert response.status_code == 200, response.text
    assert response.content == b"1\n00:00:00,000 --> \xc3\xa9\n"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    task = written(memory)
    assert named(response) == task["id"]
    assert (task["endpoint"], task["mode"], task["model"], task["queue"]) == (path, "blocking", "m", "default")
    assert (task["data_ref"] is None) == (content is SMALL)
    assert stored(memory) == ([] if content is SMALL else [f"tasks/{task['id']}"])
    found = parts(task, await body_of(memory, task))
    heads = [head for head, _ in found]
    assert any(b'name="language"' in head for head in heads)
    assert [one for head, one in found if b"filename=" in head] == [content]
    assert not any(b'name="async"' in head or b'name="stream"' in head for head in heads)


async def test_several_images_and_a_mask(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer()
    files = [("image[]", ("a.png", b"A", "image/png")), ("image[]", ("b.png", b"B")), ("mask", ("m.png", b"M"))]
    response = await client.post(EDIT, data={"model": "m", "prompt": "p", "n": "2", "size": "auto"}, files=files)
    assert response.status_code == 200, response.text
    task = written(memory)
    assert [one for head, one in parts(task, await body_of(memory, task)) if b"filename=" in head] == [b"A", b"B", b"M"]


@pytest.mark.parametrize("value", ["true", "True", "1"])
async def test_async_is_taken_off_and_answered_with_202(ingress: Double, value: str) -> None:
    memory, client = ingress
    response = await client.post(SPEECH, **form(**{"async": value}), headers={"X-Headrace-Level": "1"})
    assert response.status_code == 202, response.text
    task = written(memory, level=1)
    assert (task["mode"], named(response)) == ("callback", task["id"])
    assert b"async" not in await body_of(memory, task)


@pytest.mark.parametrize("first", [True, False])
async def test_a_streamed_transcription(ingress: Double, first: bool) -> None:
    memory, client = ingress
    frames = [b'{"type":"transcript.text.delta","delta":"a"}', b'{"type":"transcript.text.done","text":"a"}']
    memory.answer = lambda task: [
        chunk(task, 0, *frames),
        result_of(task["id"] or "", chunks=1, content_type="text/event-stream"),
    ]
    sent = form()
    files = sent["files"]
    flags = [("stream", (None, "true")), ("model", (None, "m"))]
    response = await client.post(SPEECH, files=[*flags, *files] if first else [*files, *flags])
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content == b"".join(b"data: %b\n\n" % frame for frame in (*frames, b"[DONE]"))
    task = written(memory)
    assert task["mode"] == "streaming"
    found = parts(task, await body_of(memory, task))
    assert [one for head, one in found if b'name="stream"' in head] == [b"true"]


async def test_the_same_form_with_the_same_key_is_the_same_body(ingress: Double) -> None:
    memory, client = ingress
    for key in ("one", "one", "two"):
        await client.post(SPEECH, **form(content=LARGE, **{"async": "true"}), headers={"Idempotency-Key": key})
    tasks = [TASK.decode(record.value or b"") for record in memory.written(topics.tasks(0))]
    digests = [task["data_ref"]["sha256"] for task in tasks if task["data_ref"]]
    assert digests[0] == digests[1] != digests[2]


REFUSED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "no file": (SPEECH, {"files": {"model": (None, "m")}}, 400, "file"),
    "no model": (SPEECH, form(model=None), 400, "model"),
    "a blank model": (SPEECH, form(model=" "), 400, "model"),
    "an empty file": (SPEECH, form(content=b""), 400, "file"),
    "two files": (SPEECH, {"data": {"model": "m"}, "files": [("file", ("a.mp3", b"x"))] * 2}, 400, "file"),
    "another format": (SPEECH, {"data": {"model": "m"}, "files": {"file": ("a.txt", b"x")}}, 400, "file"),
    "a name that tells another": (
        SPEECH,
        {"data": {"model": "m"}, "files": {"file": ("a.txt", b"x", "audio/ogg")}},
        400,
        "file",
    ),
    "no format": (TRANSLATE, {"data": {"model": "m"}, "files": {"file": ("upload", b"x")}}, 400, "file"),
    "async and stream": (SPEECH, form(stream="true", **{"async": "true"}), 400, "stream"),
    "a stream of a translation": (TRANSLATE, form(stream="true"), 400, "stream"),
    "a strange flag": (SPEECH, form(**{"async": "maybe"}), 400, "async"),
    "no image": (EDIT, {"data": {"model": "m", "prompt": "p"}, "files": {"mask": ("m.png", b"x")}}, 400, "image"),
    "no prompt": (EDIT, form(EDIT, prompt=None), 400, "prompt"),
    "an image that is a word": (EDIT, {"files": {"image": (None, "x"), "model": (None, "m")}}, 400, "image"),
    "JSON": (SPEECH, {"json": {"model": "m"}}, 415, "content-type"),
    "nothing": (SPEECH, {}, 415, "content-type"),
    "no boundary": (SPEECH, {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "content-type"),
    "broken": (
        SPEECH,
        {"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        400,
        "body",
    ),
    "compressed": (
        SPEECH,
        {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=x", "content-encoding": "gzip"}},
        400,
        "body",
    ),
    "too large": (SPEECH, form(content=b"x" * (MOST + 1)), 413, "file"),
    "far too large": (SPEECH, form(content=b"x" * (MOST + 2_000_000)), 413, "body"),
    "wrong header": (SPEECH, form(content=LARGE) | {"headers": {"X-Headrace-Level": "7"}}, 400, "X-Headrace-Level"),
    "refused after the form": (
        SPEECH,
        form(content=LARGE) | {"headers": {"X-Headrace-Level": "1"}},
        400,
        "X-Headrace-Level",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_wrong_form_is_refused_and_nothing_stays(ingress: Double, name: str) -> None:
    memory, client = ingress
    path, sent, status, param = REFUSED[name]
    found = error(await client.post(path, **sent), status)
    assert (found["param"], found["type"]) == (param, "invalid_request_error"), found
    assert memory.log == {}
    assert stored(memory) == []


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("upload", "audio/x-m4a; codecs=1"),
        ("upload.bin", "audio/ogg; codecs=opus"),
        ("PTT-20261130-WA0001.opus", "application/octet-stream"),
        ("voice.OGA", "application/octet-stream"),
        ("blob", "audio/opus"),
        ("note.of-today", "Audio/OGG"),
    ],
)
async def test_a_voice_note_is_known_by_its_name_or_else_by_its_type(
    ingress: Double, name: str, media_type: str
) -> None:
    memory, client = ingress
    memory.answer = answer()
    files = {"file": (name, b"x", media_type)}
    assert (await client.post(SPEECH, data={"model": "m"}, files=files)).status_code == 200


async def pieces_of(request: httpx.Request, *, size: int = 1_000) -> AsyncIterator[bytes]:
    data = await request.aread()
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_a_form_in_many_pieces_without_a_length(ingress: Double) -> None:
    memory, client = ingress
    memory.answer = answer()
    built = client.build_request("POST", SPEECH, **form(content=LARGE))
    headers = {"content-type": built.headers["content-type"]}
    response = await client.post(SPEECH, content=pieces_of(built, size=77), headers=headers)
    assert response.status_code == 200, response.text
    task = written(memory)
    assert LARGE in [one for _, one in parts(task, await body_of(memory, task))]
    built = client.build_request("POST", SPEECH, **form(content=b"x" * MOST * 2))
    response = await client.post(
        SPEECH, content=pieces_of(built), headers={"content-type": built.headers["content-type"]}
    )
    assert error(response, 413)["param"] == "file"
    assert response.headers["connection"] == "close"
    assert len(stored(memory)) == 1


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_one_too_many_keeps_nothing(ingress: Double, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    memory, client = ingress
    full = RateLimited("enough")

    def refuse(*_: object) -> None:
        raise full

    monkeypatch.setattr(memory.ingress.waiters, "registered", refuse)
    error(await client.post(SPEECH, **form(content=LARGE, stream=stream)), 429)
    assert stored(memory) == []
    assert memory.log == {}


async def test_who_does_not_wait_needs_no_room_to_wait(ingress: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, client = ingress
    monkeypatch.setattr(memory.ingress.waiters, "_limit", 0)
    error(await client.post(SPEECH, **form(content=LARGE)), 503)
    assert (await client.post(SPEECH, **form(content=LARGE, **{"async": "true"}))).status_code == 202
    assert stored(memory) == [f"tasks/{written(memory)['id']}"]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["inline", "stored"])
async def test_a_look_at_a_form_shows_the_task_without_its_files(ingress: Double, content: bytes) -> None:
    _, client = ingress
    accepted = await client.post(SPEECH, **form(content=content, **{"async": "true"}))
    for path in (accepted.headers["location"], f"/v1/queue/{named(accepted)}"):
        shown = await client.get(path)
        assert shown.status_code == 200
        assert shown.json()["endpoint"] == SPEECH
        assert "data" not in shown.json()


async def test_kafka_away_keeps_nothing(ingress: Double) -> None:
    memory, client = ingress
    memory.broken = True
    for sent in (form(content=LARGE), form(content=LARGE, **{"async": "true"}), form(content=LARGE, stream="true")):
        error(await client.post(SPEECH, **sent), 503)
    response = await client.post("/v1/chat/completions", json={"model": "m", "messages": ["x" * 10_000]})
    error(response, 503)
    assert stored(memory) == []
