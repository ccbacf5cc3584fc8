from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest
from ingress.api.dify.prompt import prompt_of, variables
from ingress.api.dify.request import read_ask


def asked(body: bytes) -> dict[str, str | None]:
    """Read a request and return its inputs."""
    return read_ask(body, most_files=1, require_user=False).inputs


@pytest.mark.parametrize(
    ("inputs", "query", "template", "expected"),
    [
        ({"query": "a"}, "b", None, "a"),
        ({"query": ""}, "b", None, "b"),
        ({"x": "1"}, "b", None, "b"),
        ({"text": "only"}, "", None, "only"),
        ({"city": "Ulm", "days": "3"}, "", None, "city: Ulm\ndays: 3"),
        ({"query": "a"}, "", "Say {query}!", "Say a!"),
        ({"to": "French"}, "hi", "Into {to}: {query}", "Into French: hi"),
        ({"to": "French", "query": "hi"}, "", "Into {{ to }}: {{query}}", "Into French: hi"),
        ({"query": "hi", "name": "x"}, "", "About {name}", "hi"),
        ({"name": "x"}, "", "About {name}", "About x"),
        ({"name": '{"a":[1,null]}'}, "", "JSON {name} {}", 'JSON {"a":[1,null]} {}'),
        ({"name": "{other}", "other": "no"}, "", "{name}", "{other}"),
        ({"name": None}, "", "[{name}]", "[]"),
        ({"name": "x"}, "", '{"json": {"a": 1}, "b": "{name}"}', '{"json": {"a": 1}, "b": "x"}'),
        ({"name": "x"}, "", "{name.upper} {name[0]} {0} {name!r}", "{name.upper} {name[0]} {0} {name!r}"),
    ],
)
def test_prompt(inputs: dict[str, Any], query: str, template: str | None, expected: str) -> None:
    assert prompt_of(inputs, query, template) == expected


@pytest.mark.parametrize(
    ("inputs", "template", "field"),
    [
        ({"a": "x"}, "{b}", "inputs.b"),
        ({"a": "x"}, "{query}", "inputs.query"),
        ({"a": ""}, None, "inputs"),
        ({"a": None, "b": " "}, None, "inputs"),
    ],
)
def test_what_is_missing_is_named(inputs: dict[str, Any], template: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        prompt_of(inputs, "", template)
    assert refused.value.field == field


def test_deep_inputs_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="nested"):
        asked(b'{"inputs":{"a":' + b"[" * 300 + b"]" * 300 + b"}}")


@pytest.mark.parametrize("number", ["3", "123456789012345678901234567890", "0.12345678901234567890", "1e400"])
def test_inputs_that_are_no_strings_go_into_the_prompt_as_they_came(number: str) -> None:
    body = b'\xef\xbb\xbf{"inputs":{"n":%b,"list":[%b,null],"none":null,"text":"a"}}' % (
        number.encode(),
        number.encode(),
    )
    assert asked(body) == {"n": number, "list": f"[{number},null]", "none": None, "text": "a"}


def test_names_of_a_template() -> None:
    assert variables("{a} {{b}} {a} {1} {c.d}") == ["a", "b"]


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(), min_size=1))
def test_values_come_through_unchanged(inputs: dict[str, str]) -> None:
    name, value = next(iter(inputs.items()))
    if name != "query":
        inputs.pop("query", None)
        assert prompt_of(inputs, "", f"<{{{name}}}>") == f"<{value}>"
