"""The lines of output and error files, byte for byte."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import orjson
import pytest

from dispatcher.batches.output_lines import OutputLine, error_line, line_of, unsubmitted_line
from schemas.ids import TaskId
from tests.support.batch_doubles import batch_row
from tests.support.results import result_of

ID = TaskId(7, 1, "P", 1_795_000_000, 3, 5)
BLOB = {"uri": "results/x", "size": 9, "sha256": ""}


def whole(line: OutputLine) -> Any:
    """Parse a line as its readers do; it is one line."""
    text = line.head + line.body + line.tail
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    return orjson.loads(text)


def formed(**changes: Any) -> OutputLine:
    return line_of(result_of(str(ID), custom_id='c"1\n', **changes))


def test_a_good_answer_is_passed_on_as_it_came() -> None:
    line = formed(body=b'{"b":1,\r\n "a":"\\n",\n"c":1.50}')
    assert line.good
    assert line.body == b'{"b":1,   "a":"\\n", "c":1.50}'
    assert whole(line) == {
        "id": ID.batch_request(),
        "custom_id": 'c"1\n',
        "response": {"status_code": 200, "request_id": str(ID), "body": {"b": 1, "a": "\n", "c": 1.5}},
        "error": None,
    }


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b'{"error":{"code":"x"}}', {"error": {"code": "x"}}), (b"Bad\nGateway", "Bad\nGateway"), (None, None)],
)
def test_a_bad_answer_is_shown_without_an_error(body: bytes | None, shown: object) -> None:
    line = formed(state="failed", status_code=400, error_code="upstream_error", error_message="no", body=body)
    assert not line.good
    assert whole(line)["response"] == {"status_code": 400, "request_id": str(ID), "body": shown}
    assert whole(line)["error"] is None


@pytest.mark.parametrize(
    ("state", "code", "shown"),
    [
        ("failed", "timeout", "request_timeout"),
        ("failed", "start_timeout", "request_timeout"),
        ("failed", "worker_lost", "worker_lost"),
        ("cancelled", "batch_cancelled", "batch_cancelled"),
        ("cancelled", "batch_expired", "batch_expired"),
        ("cancelled", "cancelled", "cancelled"),
        ("failed", None, "internal_error"),
    ],
)
def test_without_an_answer_there_is_an_error(state: str, code: str | None, shown: str) -> None:
    line = formed(state=state, status_code=408, error_code=code, error_message="why", body=None)
    assert not line.good
    assert whole(line) == {
        "id": ID.batch_request(),
        "custom_id": 'c"1\n',
        "response": None,
        "error": {"code": shown, "message": "why"},
    }


def test_a_stored_answer_stays_where_it_is_until_it_is_written() -> None:
    line = formed(body=None, body_ref=BLOB)
    assert line.stored == BLOB
    assert orjson.loads(line.head + b"7" + line.tail)["response"]["body"] == 7
    assert formed(body=None, body_ref=BLOB, content_type="audio/wav").stored == BLOB


@pytest.mark.parametrize(("ending", "code"), [("expired", "batch_expired"), ("cancelled", "batch_cancelled")])
def test_a_line_that_never_ran_says_why(ending: str, code: str) -> None:
    blob: Any = BLOB
    line = whole(unsubmitted_line(batch_row(blob, ending=ending), "c-1", task_id=ID))
    assert (line["custom_id"], line["response"], line["error"]["code"]) == ("c-1", None, code)
    assert whole(error_line(None, "x", "y", task_id=ID))["custom_id"] is None


def test_bytes_are_base64_beside_their_media_type() -> None:
    response = whole(formed(body=bytes(range(256)), content_type="audio/mpeg"))["response"]
    assert b64decode(response["body"]) == bytes(range(256))
    assert (response["result_content_type"], response["result_encoding"]) == ("audio/mpeg", "base64")


def test_a_text_stays_a_text_though_it_looks_like_a_number() -> None:
    assert whole(formed(body=b"42", content_type="text/plain; charset=utf-8"))["response"]["body"] == "42"
