"""Members of a JSON object are changed and taken out, and no number in it is rounded."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.json_text import DEEPEST, TooDeep, changed, member, read_json, values

LONG = b"123456789012345678901234567890"
BEYOND = [b"1e400", b"-1.5E+400", b"1e-400", b"1" + b"0" * 400, b"1E0000400"]
"""Numbers that no float holds."""
PRECISE = b"3.14159265358979323846264338327950288"


def edited(text: bytes, **changes: bytes | None) -> bytes:
    return changed(text, read_json(text), changes)


@pytest.mark.parametrize(
    "number", [LONG, b"-" + LONG, PRECISE, PRECISE + b"e+17", b"1234567890.1234567", b"0", *BEYOND]
)
def test_a_number_stays_as_it_is(number: bytes) -> None:
    text = b'{"a":%b,"stream":true,"deep":{"n":[%b]}}' % (number, number)
    assert edited(text, stream=b"false") == b'{"a":%b,"stream":false,"deep":{"n":[%b]}}' % (number, number)
    assert edited(text, stream=None) == b'{"a":%b,"deep":{"n":[%b]}}' % (number, number)
    assert edited(text, z=b"1") == text[:-1] + b',"z":1}'
    assert member(text, read_json(text), "a") == number
    assert values(text, read_json(text)) == {"a": number, "stream": b"true", "deep": b'{"n":[%b]}' % number}


@pytest.mark.parametrize("number", [b"1", LONG])
def test_names_and_values_are_found_however_they_are_written(number: bytes) -> None:
    text = b' { "stre\\u0061m" :\ttrue , "t":"a \\"}\\\\", "n" : [ %b , "]" ] ,"e":{},"s":"" }\r\n' % number
    assert json.loads(edited(text, stream=b"false")) == {**json.loads(text), "stream": False}
    assert json.loads(edited(text, t=None)) == {k: v for k, v in json.loads(text).items() if k != "t"}
    assert [json.loads(value) for value in values(text, read_json(text)).values()] == list(json.loads(text).values())


@pytest.mark.parametrize("number", [b"1", LONG])
def test_a_name_that_is_given_twice_is_changed_once_and_the_last_is_read(number: bytes) -> None:
    text = b'{"stream":true,"n":%b,"stream":true,"n":%b5}' % (number, number)
    assert member(text, read_json(text), "n") == number + b"5"
    assert edited(text, stream=b"false").count(b"stream") == 1
    assert b"stream" not in edited(text, stream=None)


def test_nothing_to_change_changes_nothing() -> None:
    assert edited(b' {"a" : 1.10} ') == b' {"a" : 1.10} '
    assert edited(b"{}", a=b"1") == edited(b"{ }", a=b"1") == b'{"a":1}'


@pytest.mark.parametrize("number", [b"1", LONG])
def test_too_deep_nesting_is_reported(number: bytes) -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' + b"[" * levels + number + b"]" * levels + b"}"

    assert member(nested(DEEPEST), read_json(nested(DEEPEST)), "a") == nested(DEEPEST)[5:-1]
    for levels in (DEEPEST + 2, 900):
        with pytest.raises(TooDeep):
            member(nested(levels), read_json(nested(levels)), "a")


@pytest.mark.parametrize("number", BEYOND)
def test_a_number_that_no_float_holds_is_read_as_one_near_its_end(number: bytes) -> None:
    read = read_json(b'\xef\xbb\xbf{"a":"%b \\" 1e400","b":%b}' % (number, number))
    assert read["a"] == number.decode() + ' " 1e400'
    assert abs(read["b"]) in (0.0, 1e308)
    assert (read["b"] < 0) == number.startswith(b"-")
    assert read_json(number.decode()) == read["b"]
    for broken in (b'{"a":1e400,}', b'{"a":1e400', b'{"a":1e400 "b"}', b'{"a":01e400}'):
        with pytest.raises(orjson.JSONDecodeError):
            read_json(broken)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_json(b'\xef\xbb\xbf{"a":1}') == read_json('\ufeff{"a":1}') == {"a": 1}
    with pytest.raises(orjson.JSONDecodeError):
        read_json(b'{"a":\xef\xbb\xbf1}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)  # the machine may be busy
@given(
    st.dictionaries(st.text(), json_values, max_size=5), st.sampled_from(["", " ", "\n\t"]), st.booleans(), st.data()
)
def test_any_object_keeps_what_is_not_changed(
    object_: dict[str, Any], space: str, ascii_: bool, data: st.DataObject
) -> None:
    text = json.dumps(
        {**object_, "long": int(LONG)}, ensure_ascii=ascii_, separators=(f"{space},{space}", f"{space}:{space}")
    ).encode()
    read = read_json(text)
    name = data.draw(st.sampled_from(list(read)))
    exact = json.loads(text)
    assert json.loads(member(text, read, name)) == exact[name]
    assert json.loads(changed(text, read, {name: b"7", "new": b"8"})) == {**exact, name: 7, "new": 8}
    assert json.loads(changed(text, read, {name: None})) == {n: v for n, v in exact.items() if n != name}
