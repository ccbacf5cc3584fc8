from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest, RequestError, TooLarge
from ingress.http.multipart import MAX_PARTS, FormFile, FormLimits, FormRewriter, boundary_of

EDGE = "client-edge"
OURS = "ours"


def part(name: str, value: bytes | str, *, filename: str | None = None, more: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    data = value.encode() if isinstance(value, str) else value
    return f'Content-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'.encode() + data


def form(*parts: bytes, edge: str = EDGE) -> bytes:
    return b"".join(f"--{edge}\r\n".encode() + one + b"\r\n" for one in parts) + f"--{edge}--\r\n".encode()


def rewriter(*, limit: int = 10_000_000, seen: list[FormFile] | None = None) -> FormRewriter:
    rules = FormLimits(
        frozenset(("model", "async", "stream")),
        frozenset(("async", "stream")),
        frozenset(("file",)),
        limit,
        (seen if seen is not None else []).append,
    )
    return FormRewriter(EDGE.encode(), rules, new_boundary=OURS)


def through(pieces: Iterable[bytes], **added: str) -> tuple[bytes, FormRewriter]:
    made = rewriter()
    out = [made.feed(piece) for piece in pieces]
    return b"".join([*out, made.close(added)]), made


TRICKY = b"\r\n--client-edg" + bytes(range(256)) * 3 + b"\r\n--client-edge-not\r\n\r\n--\r\n--clien"
FORM = form(
    part("model", "whisper-1"),
    part("async", "true"),
    part("file", TRICKY, filename="höre.mp3", more="Content-Type: audio/mpeg\r\n"),
    part("stream", "false"),
    part("timestamp_granularities[]", "word"),
    part("timestamp_granularities[]", "segment"),
    part("prompt", "a\r\nb ✓"),
)
EXPECTED = form(
    part("model", "whisper-1"),
    part("file", TRICKY, filename="höre.mp3", more="Content-Type: audio/mpeg\r\n"),
    part("timestamp_granularities[]", "word"),
    part("timestamp_granularities[]", "segment"),
    part("prompt", "a\r\nb ✓"),
    part("stream", "true"),
    edge=OURS,
)


@given(st.lists(st.integers(0, len(FORM)), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_form(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(FORM)]
    out, made = through([FORM[begin:end] for begin, end in pairwise(ends)], stream="true")
    assert out == EXPECTED
    assert made.fields == {"model": "whisper-1", "async": "true", "stream": "false"}
    assert made.files == {"file": 1}
    assert made.names >= {"timestamp_granularities[]", "prompt"}


def test_byte_by_byte() -> None:
    out, _ = through([bytes([byte]) for byte in FORM], stream="true")
    assert out == EXPECTED


@given(st.binary(max_size=300), st.lists(st.integers(0, 500), max_size=8))
def test_any_content_comes_through(content: bytes, cuts: list[int]) -> None:
    if f"\r\n--{EDGE}".encode() in b"\r\n" + content + b"\r\n":
        return
    sent = form(part("file", content + b"x", filename="a"))
    ends = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    out, _ = through([sent[begin:end] for begin, end in pairwise(ends)])
    assert out == form(part("file", content + b"x", filename="a"), edge=OURS)


def test_the_head_of_a_file_is_shown_before_its_content() -> None:
    seen: list[FormFile] = []
    made = rewriter(seen=seen)
    head = b"--client-edge\r\n" + part("file", b"", filename='a "b".MP3', more="Content-Type: Audio/MPEG; x=1\r\n")
    made.feed(head.replace(b'a "b"', rb"a \"b\""))
    assert seen == [FormFile("file", 'a "b".MP3', "audio/mpeg")]


def test_an_extended_file_name() -> None:
    seen: list[FormFile] = []
    made = rewriter(seen=seen)
    made.feed(b"--client-edge\r\nContent-Disposition: form-data; name=file; filename*=utf-8''h%C3%B6re.ogg\r\n\r\nx")
    assert seen == [FormFile("file", "höre.ogg", "")]


BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "body"),
    "no form": (b'{"model": "x"}', "body"),
    "another boundary": (form(part("model", "x"), edge="other"), "body"),
    "broken off in a head": (FORM[:40], "body"),
    "broken off in a part": (FORM[:300], "body"),
    "no end": (FORM[:-20], "body"),
    "a part without a name": (form(b"Content-Disposition: form-data\r\n\r\nx"), "body"),
    "a part without a disposition": (form(b"Content-Type: text/plain\r\n\r\nx"), "body"),
    "two dispositions": (form(b"Content-Disposition: form-data; name=a\r\n" + part("stream", "true")), "body"),
    "a bare line end in a header": (form(part("model", "x", more="X-A: b\nX-C: d\r\n")), "body"),
    "a header without end": (b"--client-edge\r\nContent-Disposition: " + b"x" * 20_000, "body"),
    "too many headers": (form(part("model", "x", more="X-A: b\r\n" * 40)), "body"),
    "too many parts": (form(*[part("a", "b")] * (MAX_PARTS + 1)), "body"),
    "a file that is none": (form(part("file", "x")), "file"),
    "an empty file": (form(part("file", "", filename="a.mp3")), "file"),
    "a field that is a file": (form(part("model", "x", filename="model")), "model"),
    "a field given twice": (form(part("model", "x"), part("model", "y")), "model"),
    "a long field": (form(part("model", "x" * 5_000)), "model"),
    "a field of other bytes": (form(part("model", b"\xff\xfe")), "model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_form_is_refused_however_it_is_cut(name: str) -> None:
    data, field = BROKEN[name]
    for size in (1, 7, 100_000):
        with pytest.raises(InvalidRequest) as caught:
            through([data[at : at + size] for at in range(0, len(data), size)])
        assert caught.value.field == field


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    try:
        through([FORM[:60], data])
    except RequestError:
        return


@given(st.lists(st.tuples(st.integers(0, len(FORM) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_form_is_refused_or_passed_on_whole(damage: list[tuple[int, int]]) -> None:
    data = bytearray(FORM)
    for at, byte in damage:
        data[at] = byte
    try:
        out, _ = through([bytes(data)])
    except RequestError:
        return
    assert out.endswith(b"--ours--\r\n")


def test_files_count_together() -> None:
    made = rewriter(limit=100)
    with pytest.raises(TooLarge, match="max_upload_bytes") as caught:
        made.feed(form(part("file", b"x" * 60, filename="a"), part("more", b"x" * 41, filename="b")))
    assert caught.value.field == "more"
    rewriter(limit=100).feed(form(part("file", b"x" * 100, filename="a"), part("prompt", "y" * 500)))


@pytest.mark.parametrize("value", ["", "application/json", "multipart/mixed; boundary=x", "text/plain"])
def test_another_type_has_no_boundary(value: str) -> None:
    assert boundary_of(value) is None


@pytest.mark.parametrize(
    "value", ["multipart/form-data", 'multipart/form-data; boundary=""', "multipart/form-data; boundary=" + "x" * 300]
)
def test_a_form_without_a_boundary_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        boundary_of(value)


def test_a_quoted_boundary() -> None:
    assert boundary_of('Multipart/Form-Data; charset=utf-8; Boundary="a b"') == b"a b"
