"""Bodies of any kind in JSON objects."""

from __future__ import annotations

from base64 import b64decode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.embedding import described, embedded_frame, one_line


@pytest.mark.parametrize(
    ("body", "content_type", "shown"),
    [
        (b'{"n":123456789012345678901234567890}', "application/json", b'{"body":{"n":123456789012345678901234567890}}'),
        (b'{"n":NaN}', "application/json; charset=utf-8", b'{"body":{"n":null}}'),
        (b'{"a":1}', "text/plain", b'{"body":{"a":1}}'),
        (b'{"a":1}', "", b'{"body":{"a":1}}'),
        (b"42", "text/plain", b'{"body":"42"}'),
        (b"{half", "application/json", b'{"body":"{half"}'),
        (b"\x00\x00", "audio/wav", b'{"body":"AAA=","x_content_type":"audio/wav","x_encoding":"base64"}'),
        (b"\xff", "text/plain", b'{"body":"/w==","x_content_type":"text/plain","x_encoding":"base64"}'),
    ],
)
def test_json_as_it_is_text_as_a_string_and_bytes_in_base64(body: bytes, content_type: str, shown: bytes) -> None:
    assert orjson.dumps(described(body, content_type, name="body", types="x")) == shown


@given(st.binary(), st.sampled_from(["audio/mpeg", "text/plain", "application/octet-stream", "image/png"]))
def test_no_byte_is_lost(body: bytes, content_type: str) -> None:
    shown = orjson.loads(orjson.dumps(described(body, content_type, name="result")))
    if "result_encoding" in shown:
        assert b64decode(shown["result"]) == body
    elif isinstance(shown["result"], str):
        assert shown["result"].encode() == body


def test_a_whole_answer_is_one_frame() -> None:
    assert embedded_frame(b'{\n "a": 1\n}', "application/json") == b'{  "a": 1 }'
    assert embedded_frame(b"plain\ntext", "text/plain") == b"plain\ntext"
    shown = b'{"result":"/w==","result_content_type":"audio/mpeg","result_encoding":"base64"}'
    assert embedded_frame(b"\xff", "audio/mpeg") == shown


def test_only_breaks_are_taken_out() -> None:
    assert one_line(b'{"a": "b"}') == b'{"a": "b"}'
    assert one_line(b"[1,\r\n\t2]") == b"[1,  \t2]"
