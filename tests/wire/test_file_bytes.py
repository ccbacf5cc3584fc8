"""The bytes of files: however they come in, and in the ranges that are asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from core.settings.models import Settings
from core.storage.blobs import open_blobs
from ingress.files.upload import receive_file
from tests.support.bella import Double
from tests.support.forms import END, HEAD, PURPOSE, form_in_pieces
from tests.support.memory_batches import SMALL_FILES, uploaded
from tests.support.openai import error

SETTINGS = SMALL_FILES


@pytest.mark.parametrize(
    ("asked", "status", "begin", "end"),
    [
        ("bytes=0-4", 206, 0, 5),
        ("bytes=10-", 206, 10, 100),
        ("bytes=-7", 206, 93, 100),
        ("bytes=-700", 206, 0, 100),
        ("bytes=90-9999", 206, 90, 100),
        ("bytes=99-99", 206, 99, 100),
        ("bytes=0-1,5-6", 200, 0, 100),
        ("bytes=9-3", 200, 0, 100),
        ("lines=1-2", 200, 0, 100),
        ("bytes=-", 200, 0, 100),
        ("bytes=100-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=99999999999999999999-", 416, 0, 0),
        pytest.param(f"bytes={'9' * 5_000}-{'9' * 6_000}", 416, 0, 0, id="both-long"),
        pytest.param(f"bytes={'0' * 5_000}5-{'9' * 5_000}", 206, 5, 100, id="zeros"),
        pytest.param(f"bytes=-{'9' * 5_000}", 206, 0, 100, id="long-suffix"),
    ],
)
async def test_ranges(ingress: Double, asked: str, status: int, begin: int, end: int) -> None:
    _, client = ingress
    data = bytes(range(100))
    file = await uploaded(client, data)
    answer = await client.get(f"/v1/files/{file['id']}/content", headers={"range": asked})
    assert answer.status_code == status, answer.text
    if status == 416:
        assert error(answer, 416)["code"] == "range_not_satisfiable"
        assert answer.headers["content-range"] == "bytes */100"
        return
    assert answer.content == data[begin:end]
    assert answer.headers.get("content-range") == (None if status == 200 else f"bytes {begin}-{end - 1}/100")


async def test_a_condition_on_another_version_gives_the_whole(ingress: Double) -> None:
    _, client = ingress
    path = f"/v1/files/{(await uploaded(client))['id']}/content"
    etag = (await client.get(path)).headers["etag"]
    for condition, status in ((etag, 206), ('"other"', 200)):
        answer = await client.get(path, headers={"range": "bytes=0-1", "if-range": condition})
        assert answer.status_code == status


@profile(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 600), max_size=20))
async def test_any_cut_of_a_form_gives_the_same_file(data: bytes, cuts: list[int]) -> None:
    body = PURPOSE + HEAD + data + b"\r\n" + END
    blobs = open_blobs(Settings.model_validate({"storage": {"url": "memory:///"}}))
    file = await receive_file(form_in_pieces(body, cuts), blobs, owner="acme", most_bytes=1_000)
    assert await blobs.get(file["blob"]) == data
    assert (file["purpose"], file["filename"], file["owner"]) == ("batch", "a.jsonl", "acme")
