"""The subjects of a schema registry: which schema stands under which name, in which versions, with which ids. Pure.

A subject is the name of a topic and `-value`. Ids, versions and texts are those of schemas/avsc, fixed for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from fastavro.schema import SchemaParseException, to_parsing_canonical_form

from schemas import topics
from schemas.codec import registry, schema_text

SUFFIX = "-value"
WORK_RECORD = "work"
RESULT_RECORD = "result"


class Version(NamedTuple):
    """One version of a subject."""

    number: int
    schema_id: int
    text: str


class NoSchema(ValueError):
    """The text is no Avro schema."""


@cache
def versions_of(name: str) -> tuple[Version, ...]:
    """Return the versions of a record's schema, the oldest first."""
    found = [
        Version(int(entry["version"]), number, schema_text(number))
        for number, entry in registry().items()
        if entry["name"] == name
    ]
    return tuple(sorted(found))


def canonical(text: str) -> str:
    """Return what decides over the bytes of a schema's records, without docs and defaults; raises NoSchema."""
    try:
        return str(to_parsing_canonical_form(json.loads(text)))
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoSchema("the schema is no valid Avro schema") from error


def record_name(text: str) -> str:
    """Name the record of a schema, with its namespace; raises NoSchema."""
    form = json.loads(canonical(text))
    return str(form["name"] if isinstance(form, dict) and "name" in form else form)


def subjects(*, prefix: str, there: Iterable[str] = (), reply_topics: Iterable[str] = ()) -> dict[str, str]:
    """Return subject → name of its record, for every topic that can be named beforehand.

    These are the declared topics, the work topics among those that are `there`, and reply topics that are named in
    full. The record of work topics has a subject by its own name, too: before the first queue there is no topic for it.
    """
    found = {prefix + topic.name: topic.schema for topic in topics.declared(partitions=1) if topic.schema}
    work = f"{prefix}{topics.WORK}."
    found |= {name: WORK_RECORD for name in there if name.startswith(work) and name.endswith(_LEVEL_ENDINGS)}
    found |= {name: RESULT_RECORD for name in reply_topics if not {"*", "?"} & set(name)}
    by_name = {record_name(versions_of(WORK_RECORD)[0].text): WORK_RECORD}
    return by_name | {name + SUFFIX: record for name, record in sorted(found.items())}


_LEVEL_ENDINGS = tuple(f".{level}" for level in topics.LEVELS)
