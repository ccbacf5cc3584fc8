"""Wrong parameters and members are refused in plain words that name them, whatever pydantic says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from core.errors import InvalidRequest
from ingress.http.validation import Digits, JsonObject, Parameters, listed, read_members, read_parameters


class Query(Parameters):
    """A query."""

    limit: Annotated[int, Field(ge=1, le=100), Digits] = 20
    order: Literal["asc", "desc"] = "asc"
    after: str | None = None


class Inner(JsonObject):
    """An object in a body."""

    seconds: int


class Body(JsonObject):
    """A body."""

    name: Annotated[str, Field(min_length=1, max_length=8)]
    paused: bool | None = None
    count: Annotated[int, Field(ge=0, le=5)] | None = None
    ids: Annotated[list[Annotated[str, Field(max_length=3)]], Field(min_length=1, max_length=2)] | None = None
    everything: bool | None = Field(None, alias="all")
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("given", "message", "field"),
    [
        ([("limit", "0")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "101")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "+5")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", " 5")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "1_0")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "5.0")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "²")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "000005")], "limit must be a whole number from 1 to 100", "limit"),
        ([("limit", "")], "limit must be a whole number from 1 to 100", "limit"),
        ([("order", "up")], "order must be asc or desc", "order"),
        ([("after", "a"), ("after", "b")], "after was given twice", "after"),
        (
            [("x" * 50, "1"), ("limit", "0")],
            f"there is no parameter {'x' * 40}; there are limit, order, after",
            "x" * 40,
        ),
    ],
)
def test_a_wrong_parameter_is_named(given: list[tuple[str, str]], message: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_parameters(Query, given)
    assert (refused.value.message, refused.value.field) == (message, field)


def test_parameters_have_defaults_and_become_numbers() -> None:
    assert read_parameters(Query, []) == Query()
    assert read_parameters(Query, [("limit", "007"), ("after", "")]) == Query(limit=7, after="")


@pytest.mark.parametrize(
    ("given", "message", "field"),
    [
        ({}, "name is missing", "name"),
        ({"name": None}, "name is missing", "name"),
        ({"name": 5}, "name must be a text of 1 to 8 characters", "name"),
        ({"name": ""}, "name must be a text of 1 to 8 characters", "name"),
        ({"name": "a", "paused": "yes"}, "paused must be true or false", "paused"),
        ({"name": "a", "paused": 1}, "paused must be true or false", "paused"),
        ({"name": "a", "count": True}, "count must be a whole number from 0 to 5", "count"),
        ({"name": "a", "count": "3"}, "count must be a whole number from 0 to 5", "count"),
        ({"name": "a", "count": 2.0}, "count must be a whole number from 0 to 5", "count"),
        ({"name": "a", "count": 10**30}, "count must be a whole number from 0 to 5", "count"),
        ({"name": "a", "ids": []}, "ids must be a list of 1 to 2 texts", "ids"),
        ({"name": "a", "ids": "x"}, "ids must be a list of 1 to 2 texts", "ids"),
        ({"name": "a", "ids": ["x", 5]}, "ids must hold texts of at most 3 characters", "ids"),
        ({"name": "a", "ids": ["long"]}, "ids must hold texts of at most 3 characters", "ids"),
        ({"name": "a", "all": "x"}, "all must be true or false", "all"),
        ({"name": "a", "inner": 5}, "inner must be object", "inner"),
        (
            {"everything": True},
            "there is no member everything; there are name, paused, count, ids, all, inner",
            "everything",
        ),
    ],
)
def test_a_wrong_member_is_named(given: dict[str, Any], message: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_members(Body, given)
    assert (refused.value.message, refused.value.field) == (message, field)


def test_members_are_read_by_the_names_of_the_api() -> None:
    body = read_members(Body, {"name": "a", "all": True, "ids": ["x"], "count": None})
    assert (body.everything, body.ids, body.count) == (True, ["x"], None)


@pytest.mark.parametrize(
    ("values", "text"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c"), ([0, 1], "0 or 1")]
)
def test_alternatives_are_listed(values: list[object], text: str) -> None:
    assert listed(values) == text
