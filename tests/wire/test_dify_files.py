"""files/upload: what is kept, what is refused, and that nothing stays behind."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from core.settings.models import DifySettings, Settings
from core.storage.blobs import open_blobs
from ingress.api.dify.form import receive
from tests.support.bella import Double, answer
from tests.support.dify import BODY, DIFY, completion, error_of, written
from tests.support.forms import EDGE, form_in_pieces
from tests.support.memory_ingress import ingress_in_memory

UPLOAD = "/files/upload"
LIMITS = {"max_image_bytes": 1000, "max_audio_bytes": 2000, "max_video_bytes": 3000, "max_other_bytes": 4000}


SETTINGS = DIFY | {"dify": LIMITS}


def stored(folder: Path) -> list[str]:
    """List what is in the store."""
    return sorted(
        str(path.relative_to(folder / "objects")) for path in (folder / "objects").rglob("*") if path.is_file()
    )


async def put(client: httpx.AsyncClient, name: str, content: bytes, **changes: Any) -> httpx.Response:
    arguments: dict[str, Any] = {"files": {"file": (name, content)}, "data": {"user": "abc-123"}, **changes}
    return await client.post(UPLOAD, **arguments)


@pytest.mark.parametrize("path", [UPLOAD, f"/v1{UPLOAD}"])
async def test_upload(ingress: Double, tmp_path: Path, path: str) -> None:
    _, client = ingress
    began = int(time.time())
    response = await client.post(path, files={"file": ("a/b\\Mill.PNG", b"picture")}, data={"user": "abc-123"})
    assert response.status_code == 201
    file = response.json()
    file_id = file.pop("id")
    assert began <= file.pop("created_at") <= time.time()
    assert file.pop("tenant_id").startswith("key-")
    assert file == {
        "name": "Mill.PNG",
        "size": 7,
        "extension": "png",
        "mime_type": "image/png",
        "created_by": "abc-123",
        "preview_url": None,
        "source_url": None,
        "original_url": None,
        "user_id": "abc-123",
        "conversation_id": None,
        "file_key": None,
        "reference": None,
    }
    assert stored(tmp_path) == [f"uploads/{file_id}", f"uploads/{file_id}.json"]
    assert (tmp_path / "objects/uploads" / file_id).read_bytes() == b"picture"


async def test_the_user_may_come_after_the_file_or_not_at_all(ingress: Double) -> None:
    _, client = ingress
    body = (
        b"--edge\r\nContent-Disposition: form-data; name=\"file\"; filename*=UTF-8''%c3%a9.txt\r\n\r\n\r\n"
        b'--edge\r\nContent-Disposition: form-data; name="user"\r\n\r\nlate\r\n--edge--\r\n'
    )
    file = (await client.post(UPLOAD, content=body, headers={"content-type": EDGE})).json()
    assert (file["created_by"], file["name"], file["size"]) == ("late", "é.txt", 0)
    assert (await put(client, "a.txt", b"x", data={})).json()["created_by"] == "DEFAULT-USER"


@pytest.mark.parametrize(
    ("name", "largest"), [("a.png", 1000), ("a.mp3", 2000), ("a.mp4", 3000), ("a.pdf", 4000), ("a.TXT", 4000)]
)
async def test_each_kind_has_its_limit(ingress: Double, tmp_path: Path, name: str, largest: int) -> None:
    _, client = ingress
    assert (await put(client, name, bytes(largest))).status_code == 201
    before = stored(tmp_path)
    response = await put(client, name, bytes(largest + 1))
    assert error_of(response) == (413, "file_too_large", "file")
    assert stored(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content_type", "extension"),
    [("picture", "image/png", "png"), ("notes", "text/plain; charset=utf-8", "txt"), (".png", "audio/mpeg", "mp3")],
)
async def test_without_an_extension_the_media_type_counts(
    ingress: Double, name: str, content_type: str, extension: str
) -> None:
    response = await put(ingress[1], name, b"x", files={"file": (name, b"x", content_type)})
    assert response.json()["extension"] == extension


@pytest.mark.parametrize("name", ["a.exe", "a.png.sh", "program", "a."])
async def test_other_types_are_refused(ingress: Double, tmp_path: Path, name: str) -> None:
    assert error_of(await put(ingress[1], name, b"x")) == (415, "unsupported_file_type", "file")
    assert stored(tmp_path) == []


FILE = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n'
END = b"--edge--\r\n"


@pytest.mark.parametrize(
    ("body", "content_type", "code", "field"),
    [
        (b"{}", "application/json", "no_file_uploaded", "content-type"),
        (FILE + END, "multipart/form-data", "invalid_param", "content-type"),
        (END, EDGE, "no_file_uploaded", "file"),
        (b'--edge\r\nContent-Disposition: form-data; name="user"\r\n\r\nx\r\n' + END, EDGE, "no_file_uploaded", "file"),
        (b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n' + END, EDGE, "no_file_uploaded", "file"),
        (FILE.replace(b'"a.txt"', b'""') + END, EDGE, "filename_not_exists_error", "file"),
        (FILE.replace(b"a.txt", b"a" * 300 + b".txt") + END, EDGE, "invalid_param", "file"),
        (FILE.replace(b'"file"', b'"picture"') + END, EDGE, "invalid_param", "file"),
        (FILE + FILE + END, EDGE, "too_many_files", "file"),
        (FILE, EDGE, "invalid_param", "body"),
        (FILE[:-10], EDGE, "invalid_param", "body"),
        (b"", EDGE, "invalid_param", "body"),
        (b"no form at all", EDGE, "invalid_param", "body"),
        (FILE.replace(b"name=", b"name\x00=") + END, EDGE, "no_file_uploaded", "file"),
        (FILE.replace(b'"file"; filename="a.txt"', b'"user"') * 2 + FILE + END, EDGE, None, None),
        (
            b'--edge\r\nContent-Disposition: form-data; name="user"\r\n\r\n\xff\r\n' + FILE + END,
            EDGE,
            "invalid_param",
            "user",
        ),
        (
            b'--edge\r\nContent-Disposition: form-data; name="user"\r\n\r\n' + b"x" * 5000 + b"\r\n" + FILE + END,
            EDGE,
            "invalid_param",
            "user",
        ),
        (
            b'--edge\r\nContent-Disposition: form-data; name="user"\r\n\r\n' + b"x" * 257 + b"\r\n" + FILE + END,
            EDGE,
            "invalid_param",
            "user",
        ),
        (
            b'--edge\r\nContent-Disposition: form-data; name="other"\r\n\r\n' + b"x" * 90_000 + b"\r\n" + FILE + END,
            EDGE,
            "file_too_large",
            "file",
        ),
    ],
)
async def test_broken_forms(
    ingress: Double, tmp_path: Path, body: bytes, content_type: str, code: str | None, field: str | None
) -> None:
    response = await ingress[1].post(UPLOAD, content=body, headers={"content-type": content_type})
    if code is None:
        assert response.status_code == 201
        return
    assert error_of(response)[1:] == (code, field)
    assert stored(tmp_path) == []


async def test_junk_beside_the_file_is_bounded(ingress: Double, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield FILE + b'--edge\r\nContent-Disposition: form-data; name="other"\r\n\r\n'
        for _ in range(100):
            yield bytes(10_000)
        raise AssertionError("nobody stops it")

    response = await ingress[1].post(UPLOAD, content=endless(), headers={"content-type": EDGE})
    assert error_of(response) == (400, "invalid_param", "body")
    assert stored(tmp_path) == []


async def test_a_file_is_its_users_own(ingress: Double, tmp_path: Path) -> None:
    memory, client = ingress
    memory.answer = answer(body=completion())
    file_id = (await put(client, "a.jpg", b"picture")).json()["id"]
    note_id = (await put(client, "a.txt", b"text")).json()["id"]
    drawing_id = (await put(client, "a.svg", b"<svg/>")).json()["id"]

    async def ask(upload_id: str, **changes: Any) -> httpx.Response:
        file = {"type": "image", "transfer_method": "local_file", "upload_file_id": upload_id, "url": ""}
        return await client.post("/completion-messages", json=BODY | {"files": [file]} | changes)

    assert (await ask(file_id)).status_code == 200
    parts = json.loads(written(memory)["data"] or b"")["messages"][0]["content"]
    assert parts[1]["image_url"]["url"] == f"data:image/jpeg;base64,{base64.b64encode(b'picture').decode()}"
    unknown = "6f1c7a52-8f0e-4d0b-9a64-0c8a3f2f9b11"
    for response in (await ask(file_id, user="somebody-else"), await ask(unknown), await ask(f"{file_id}.json")):
        assert error_of(response) == (400, "invalid_param", "files[0]")
        assert "names no file of this user" in response.json()["message"]
    for wrong in (note_id, drawing_id):
        assert "no image that models read" in (await ask(wrong)).json()["message"]
    beside = tmp_path / "objects/uploads" / f"{file_id}.json"
    kept = json.loads(beside.read_text())
    beside.write_text(json.dumps(kept | {"owner": "key-of-another"}))
    assert error_of(await ask(file_id)) == (400, "invalid_param", "files[0]")
    beside.write_text(json.dumps(kept | {"created_at": kept["created_at"] - 604_800}))
    assert error_of(await ask(file_id)) == (400, "invalid_param", "files[0]")


async def test_images_of_a_request_are_bounded_together(tmp_path: Path) -> None:
    async with ingress_in_memory(Settings.model_validate({"data_dir": tmp_path, **DIFY})) as (_, client):
        file_id = (await put(client, "a.png", bytes(8_000))).json()["id"]
        file = {"type": "image", "transfer_method": "local_file", "upload_file_id": file_id}
        response = await client.post("/completion-messages", json=BODY | {"files": [file, file]})
    assert error_of(response) == (413, "file_too_large", "files")


async def test_what_cannot_be_described_is_not_kept(
    ingress: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.errors import Unavailable

    memory, client = ingress

    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the object store is away")

    monkeypatch.setattr(memory.ingress.blobs, "put", away)
    assert error_of(await put(client, "a.png", b"x"))[:2] == (503, "unavailable")
    assert stored(tmp_path) == []


@profile(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 600), max_size=20))
async def test_any_cut_of_a_form_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    body = FILE.replace(b"\r\n\r\nx\r\n", b"\r\n\r\n" + data + b"\r\n") + END
    blobs = open_blobs(Settings.model_validate({"storage": {"url": "memory:///"}}))
    received = await receive(form_in_pieces(body, cuts), blobs=blobs, name="uploads/x", settings=DifySettings())
    assert await blobs.get(received.blob) == data
    assert received.blob["size"] == len(data)
