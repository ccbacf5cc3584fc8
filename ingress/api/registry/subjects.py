"""The subjects of the registry: which schema each topic has, and which version a request means. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, TypeVar

from schemas import topics
from schemas.codec import schema_text
from schemas.subjects import SUFFIX, Version, canonical, versions_of
from schemas.validation import QUEUE_NAME

LATEST = "latest"
T = TypeVar("T")


class Subjects:
    """The subjects of one topic prefix; `reply_topics` are the patterns of topics that hold results, too."""

    def __init__(self, *, prefix: str, reply_topics: Sequence[str] = ()) -> None:
        self._prefix = prefix
        self._replies = reply_topics
        self._declared = {topic.name: topic.schema for topic in topics.declared(partitions=1) if topic.schema}

    def all(self, queues: Iterable[str]) -> list[str]:
        """List every subject: declared topics, the work topics of these queues, reply topics that are named in full."""
        work = [topics.work(queue, level) for queue in queues for level in (0, 1)]
        ours = [self._prefix + name for name in (*self._declared, *work)]
        replies = [name for name in self._replies if not {"*", "?"} & set(name)]
        return sorted({name + SUFFIX for name in (*ours, *replies)})

    def versions(self, subject: str) -> list[Version]:
        """Return the versions of a subject, the oldest first; none when there is no such subject."""
        topic = subject.removesuffix(SUFFIX)
        name = self._schema_of(topic) if topic != subject else None
        return list(versions_of(name)) if name is not None else []

    def _schema_of(self, topic: str) -> str | None:
        """Return the schema of a topic; a work topic has one even if its queue does not exist: nothing is revealed."""
        own = topic.removeprefix(self._prefix)
        if topic.startswith(self._prefix):
            if own in self._declared:
                return self._declared[own]
            kind, _, queue = own.rpartition(".")[0].partition(".")
            if kind == topics.WORK and own.endswith(topics.LEVELS) and QUEUE_NAME.fullmatch(queue):
                return "work"
        return "result" if any(fnmatchcase(topic, pattern) for pattern in self._replies) else None


def chosen(versions: Sequence[Version], version: str) -> Version | None:
    """Return a version by its number; `latest` and -1 are the newest. Raises ValueError for what is neither."""
    if version in (LATEST, "-1"):
        return versions[-1]
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0
    if number < 1:
        raise ValueError(version)
    return next((one for one in versions if one.number == number), None)


def matching(versions: Sequence[Version], text: str) -> Version | None:
    """Return the newest version with a schema's text; raises NoSchema.

    The same JSON first, then the same without docs and defaults: code made from a schema often leaves them out.
    """
    form = canonical(text)
    wanted = json.loads(text)
    newest = list(reversed(versions))
    same = (one for one in newest if json.loads(one.text) == wanted)
    return next(same, None) or next((one for one in newest if _canonical(one.schema_id) == form), None)


def holding(schema_id: int, subjects: Subjects, known: Collection[str]) -> list[dict[str, Any]]:
    """List the subjects and versions that use a schema."""
    return [
        {"subject": subject, "version": version.number}
        for subject in known
        for version in subjects.versions(subject)
        if version.schema_id == schema_id
    ]


def page(items: Sequence[T], offset: int, limit: int) -> Sequence[T]:
    """Cut a list; a limit below zero is none."""
    first = max(0, offset)
    return items[first : first + limit] if limit >= 0 else items[first:]


@cache
def _canonical(schema_id: int) -> str:
    return canonical(schema_text(schema_id))
