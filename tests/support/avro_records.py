"""A hypothesis strategy for the records of any Avro schema, in the form that both Avro libraries take."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    # Surrogates are no text that UTF-8 could carry.
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    "bytes": st.binary(max_size=30),
}


def records(schema: Any, names: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a schema."""
    names = {} if names is None else names
    if isinstance(schema, str):
        return SIMPLE[schema] if schema in SIMPLE else records(names[schema], names)
    if isinstance(schema, list):
        return st.one_of([records(branch, names) for branch in schema])
    if "name" in schema:
        names[schema["name"]] = schema
    match schema["type"]:
        case "record":
            fields = {field["name"]: records(field["type"], names) for field in schema["fields"]}
            return st.fixed_dictionaries(fields)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "array" | "map":
            return collections(schema, names)
        case inner:
            return records(inner, names)


def collections(schema: Any, names: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for an array or a map."""
    if schema["type"] == "array":
        return st.lists(records(schema["items"], names), max_size=4)
    return st.dictionaries(SIMPLE["string"], records(schema["values"], names), max_size=4)
