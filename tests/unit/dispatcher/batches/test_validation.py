"""Every error of a file that makes a batch fail, and lines that do not."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest

from core.settings.batches import BatchSettings
from dispatcher.batches.input_reader import LineSplitter
from dispatcher.batches.request_line import (
    MAX_CUSTOM_ID,
    MAX_LINE_BYTES,
    BrokenLine,
    LineRequest,
    Replace,
    body_of,
    custom_id_of,
    parse_line,
)
from dispatcher.batches.validation import MAX_ERRORS, Validator
from tests.support.batch_doubles import ENDPOINT, input_file, request_line


def judged(file: bytes, *, one_model: bool = False, **changes: Any) -> Validator:
    """Validate a whole file."""
    validator = Validator(BatchSettings(**changes), endpoint=ENDPOINT, one_model=one_model)
    splitter = LineSplitter(max_bytes=MAX_LINE_BYTES)
    validator.add(splitter.feed(file))
    validator.add(splitter.finish())
    if not validator.done:
        validator.finish()
    return validator


def faults(file: bytes, **changes: Any) -> list[tuple[str, str | None, int | None]]:
    """Return code, parameter and line of each error."""
    return [(one["code"], one["param"], one["line"]) for one in judged(file, **changes).errors]


def sent(request: LineRequest, replace: bytes | None) -> bytes:
    """Return the body that a line is sent with."""
    return body_of(request, Replace.parse(replace))


def without(*names: str) -> bytes:
    line = orjson.loads(request_line(1))
    return orjson.dumps({name: value for name, value in line.items() if name not in names})


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"[" * 5_000, "invalid_request", None),
        (b'{"custom_id":"a","body":{"x":' + b"[" * 2_000 + b"]" * 2_000 + b"}}", "invalid_request", None),
        (b"[1]", "invalid_request", None),
        (b"null", "invalid_request", None),
        (without("custom_id"), "missing_required_parameter", "custom_id"),
        (request_line(1, custom_id=""), "invalid_custom_id", "custom_id"),
        (request_line(1, custom_id=5), "invalid_custom_id", "custom_id"),
        (request_line(1, custom_id="x" * (MAX_CUSTOM_ID + 1)), "invalid_custom_id", "custom_id"),
        (request_line(1, method="GET"), "invalid_method", "method"),
        (request_line(1, method=1), "invalid_method", "method"),
        (request_line(1, url="/v1/embeddings"), "url_mismatch", "url"),
        (request_line(1, url=["/v1"]), "invalid_url", "url"),
        (without("body"), "missing_required_parameter", "body"),
        (request_line(1, body="text"), "invalid_request", "body"),
        (b'{"custom_id":"a","body":{"x":' + b"[" * 400 + b"]" * 400 + b"}}", "invalid_request", "body"),
        (b'{"custom_id":"a","body":{"x":[' + b"1," * 200_000 + b"1]}}", "invalid_request", None),
        (b"x" * (MAX_LINE_BYTES + 1), "invalid_request", None),
    ],
)
def test_an_error_has_its_line_number(line: bytes, code: str, param: str | None) -> None:
    assert faults(b"\n" + request_line(2) + b"\r\n" + line + b"\n" + request_line(3)) == [(code, param, 3)]


BROKEN = [
    (b"nonsense", 1, "", None),
    (b'{"custom_id": "a"', 18, "", "a"),
    (b'{"custom_id":"\xff"}', 15, "it is not UTF-8", None),
    (b'{"custom_id":"a","body":{"x":NaN}}', 30, "", "a"),
    (b'{"custom_id":"a\\"b","body":{"x":"\\ud83d"}}', 0, "surrogate", 'a"b'),
    (b'{"custom_id":"\\ud83d","body":{}}', 0, "surrogate", None),
    (b"[" * 500, 0, "", None),
]
"""A line that is not JSON, the column (0: where the parser stops), the reason, and its custom_id."""


@pytest.mark.parametrize(("line", "column", "reason", "name"), BROKEN)
def test_a_line_that_is_no_json_is_its_own_fault(line: bytes, column: int, reason: str, name: str | None) -> None:
    assert faults(request_line(2) + b"\n" + line + b"\n" + request_line(3)) == []
    with pytest.raises(BrokenLine) as caught:
        parse_line(line, endpoint=ENDPOINT)
    assert caught.value.code == "invalid_json_line"
    assert "at column " in caught.value.message
    assert not column or f"at column {column}: " in caught.value.message
    assert reason in caught.value.message
    assert custom_id_of(line) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("customId", "did you mean custom_id?"),
        ("bdy", "did you mean body?"),
        ("URL", "did you mean url?"),
        ("x", "there are custom_id, method, url, body"),
        ("x" * 100, "there are"),
    ],
)
def test_a_member_that_is_not_known_is_an_error_of_its_line(name: str, hint: str) -> None:
    line = b'{"custom_id":"c","body":{},"%b":1}' % name.encode()
    assert faults(request_line(2) + b"\n" + line) == []
    assert faults(line) == [("unknown_parameter", name[:80], 1)]
    with pytest.raises(BrokenLine, match="is no member of a batch line; ") as caught:
        parse_line(line, endpoint=ENDPOINT)
    assert hint in caught.value.message
    assert custom_id_of(line) == "c"


def test_a_file_of_which_no_line_is_json_is_no_batch() -> None:
    found = faults(b"id,prompt\n\n1,hello\n")
    assert found == [("invalid_json_line", None, 1), ("invalid_json_line", None, 3)]


def test_an_invalid_file_reports_broken_lines_too() -> None:
    assert faults(request_line(1) + b"\nnonsense\n" + without("custom_id")) == [
        ("invalid_json_line", None, 2),
        ("missing_required_parameter", "custom_id", 3),
    ]


@pytest.mark.parametrize(
    "line",
    [
        without("method"),
        without("url"),
        without("method", "url"),
        request_line(1, method=None, url=None),
        request_line(1, body={}),
        request_line(1, body={"stream": True}),
        request_line(1, custom_id="x" * MAX_CUSTOM_ID),
        request_line(1, body={"x": [[1]] * 300}),
    ],
)
def test_what_may_be_left_out_or_is_put_right_is_no_fault(line: bytes) -> None:
    assert faults(line) == []


def test_a_file_without_requests_fails() -> None:
    assert faults(b"") == faults(b"\n \r\n") == faults(b"\xef\xbb\xbf") == [("empty_batch", None, None)]


def test_ids_that_come_again_are_found_however_far_apart() -> None:
    file = input_file(3_000) + request_line(0) + b"\n" + request_line(2_999)
    assert faults(file) == [("duplicate_custom_id", "custom_id", 3_001), ("duplicate_custom_id", "custom_id", 3_002)]


def test_one_request_too_many_fails_and_nothing_is_read_after_it() -> None:
    assert faults(input_file(5), max_lines=5) == []
    assert faults(input_file(6) + b"nonsense", max_lines=5) == [("too_many_tasks", None, None)]


def test_no_more_than_a_hundred_errors_are_stored() -> None:
    validator = judged(b"null\n" * 500)
    assert len(validator.errors) == MAX_ERRORS
    assert validator.done
    assert len(judged(b"nonsense\n" * 500).errors) == MAX_ERRORS


def test_one_model_is_demanded_only_when_asked_for() -> None:
    file = request_line(1) + b"\n" + request_line(2, body={"model": "other"})
    assert faults(file) == []
    assert faults(file, one_model=True) == [("model_mismatch", "body.model", 2)]
    assert faults(input_file(5), one_model=True) == []


def test_replace_wins_and_nothing_is_streamed() -> None:
    body = parse_line(
        request_line(1, body={"model": "a", "stream": True, "stream_options": {}, "n": 1}), endpoint=ENDPOINT
    )
    assert sent(body, b'{"model":"b"}') == b'{"model":"b","stream":false,"n":1}'
    body = parse_line(request_line(1, body={"model": "a", "stream_options": {}}), endpoint=ENDPOINT)
    assert sent(body, b'{"stream":true}') == b'{"model":"a","stream":false}'


@pytest.mark.parametrize("number", [b"123456789012345678901234567890", b"0.12345678901234567890", b"-1.5e400", b"1"])
def test_numbers_of_lines_and_of_replace_are_not_rounded(number: bytes) -> None:
    line = parse_line(b'{"body":{"seed":%b,"x":{"y":[%b]}},"custom_id":"a"}' % (number, number), endpoint=ENDPOINT)
    replaced = sent(line, b'{"top":%b}' % number)
    assert replaced == b'{"seed":%b,"x":{"y":[%b]},"top":%b}' % (number, number, number)
    assert sent(line, None) == b'{"seed":%b,"x":{"y":[%b]}}' % (number, number)


def test_a_line_that_is_no_request_may_still_have_a_name() -> None:
    assert custom_id_of(request_line(4)) == "c-4"
    assert custom_id_of(None) is custom_id_of(b"[1]") is custom_id_of(b"{") is None


@pytest.mark.parametrize("kind", ["many lines", "one line"])
def test_a_file_is_never_held(kind: str) -> None:
    """30 MB in pieces as from the object store: only the incomplete line and digests are in memory."""
    piece = (
        request_line(1, body={"model": "m", "prompt": "x" * 4_000}) + b"\n" if kind == "many lines" else b"x" * 4_096
    )
    splitter, validator = (
        LineSplitter(max_bytes=MAX_LINE_BYTES),
        Validator(BatchSettings(), endpoint=ENDPOINT, one_model=False),
    )
    tracemalloc.start()
    try:
        for number in range(7_500):
            validator.add(splitter.feed(piece.replace(b'"c-1"', b'"c-%d"' % number)))
        validator.add(splitter.finish())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * MAX_LINE_BYTES
    assert (validator.total, len(validator.errors)) == ((7_500, 0) if kind == "many lines" else (1, 1))
