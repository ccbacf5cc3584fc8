"""Subjects of a schema registry, with the versions and ids of their schemas. Pure.

A subject is a topic name with the suffix `-value`. Ids, versions and schemas are those of schemas/avsc; they never
change.
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
    """The text is not an Avro schema."""


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
    """Return the canonical form of a schema, without docs and defaults; raises NoSchema."""
    try:
        return str(to_parsing_canonical_form(json.loads(text)))
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoSchema("the schema is not a valid Avro schema") from error


def record_name(text: str) -> str:
    """Return the record name of a schema, with its namespace; raises NoSchema."""
    form = json.loads(canonical(text))
    return str(form["name"] if isinstance(form, dict) and "name" in form else form)


def subjects(*, prefix: str, existing: Iterable[str] = (), reply_topics: Iterable[str] = ()) -> dict[str, str]:
    """Return subject → record name, for every topic that is known.

    These are the declared topics, the work topics among the `existing` ones, and reply topics without wildcards. The
    work record also has a subject by its own name, because before the first queue it has no topic.
    """
    found = {prefix + topic.name: topic.schema for topic in topics.declared(partitions=1) if topic.schema}
    work = f"{prefix}{topics.WORK}."
    found |= {name: WORK_RECORD for name in existing if name.startswith(work) and name.endswith(_LEVEL_ENDINGS)}
    found |= {name: RESULT_RECORD for name in reply_topics if not {"*", "?"} & set(name)}
    by_name = {record_name(versions_of(WORK_RECORD)[0].text): WORK_RECORD}
    return by_name | {name + SUFFIX: record for name, record in sorted(found.items())}


_LEVEL_ENDINGS = tuple(f".{level}" for level in topics.LEVELS)
