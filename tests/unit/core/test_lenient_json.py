"""JSON as model servers write it, and as every parser can read it."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lenient_json import document, ends_in_half, joined, loads, strict


@pytest.mark.parametrize(
    ("written", "passed_on"),
    [
        (b'{"a":NaN,"b":-Infinity,"c":[Infinity]}', b'{"a":null,"b":null,"c":[null]}'),
        (
            b'{"n":NaN,"id":123456789012345678901234567890,"f":1.10}',
            b'{"n":null,"id":123456789012345678901234567890,"f":1.10}',
        ),
        (b'{"a":"NaN, Infinity","b":NaN}', b'{"a":"NaN, Infinity","b":null}'),
        (b'{"a":"\\ud83d"}', b'{"a":"\\ufffd"}'),
        (b'{"a":"\\ude00\\ud83d\\ude00"}', b'{"a":"\\ufffd\\ud83d\\ude00"}'),
        (b'{"a":"\\\\ud83d \\ud83d"}', b'{"a":"\\\\ud83d \\ufffd"}'),
        (b'{"a":"x\xff"}', b'{"a":"x\xef\xbf\xbd"}'),
        (b'{"a":"one\ntwo"}', b'{"a":"one\\u000atwo"}'),
        (b'\xef\xbb\xbf{"a":1}', b'{"a":1}'),
    ],
)
def test_what_is_not_quite_json_is_read_and_mended(written: bytes, passed_on: bytes) -> None:
    assert isinstance(loads(written), dict)
    assert strict(written) == passed_on


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":', b"<html>", b"{'a': 1}", b"[" * 5_000, b'"half'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        loads(text)
    assert strict(text) is None
    assert document(text) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_whatever_python_writes_becomes_json_for_all(value: object) -> None:
    mended = strict(json.dumps(value).encode())
    assert mended is not None
    orjson.loads(mended)


@given(st.binary())
def test_json_itself_is_never_touched(text: bytes) -> None:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    assert strict(text) == text


def test_halves_are_joined() -> None:
    assert joined("\ud83d" + "\ude00") == "😀"
    assert joined("a\ud83d") == "a\ufffd"
    assert joined("é") == "é"
    assert [ends_in_half(text) for text in ("", "a", "a\ud83d", "\ud83d\ude00", "😀")] == [
        False,
        False,
        True,
        False,
        False,
    ]
