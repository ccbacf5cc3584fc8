"""Compare a registry with our schemas, read-only.

Records start with the ids of schemas/avsc. A registry with another schema under one of these ids would silently decode
them wrongly, so that is an error that names both, before anything is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from core.errors import ConfigError, HeadraceError
from core.schema_registry.client import RegisteredVersion, RegistryClient
from schemas.subjects import NoSchema, Version, canonical, record_name, versions_of

AT_ONCE = 8
"""Concurrent calls: a hundred requests to a remote registry take seconds."""
IMPORT = "IMPORT"
T = TypeVar("T")


class MissingSchema(NamedTuple):
    """Missing schemas of one subject; `mode` is the mode set on the subject."""

    subject: str
    versions: tuple[Version, ...]
    mode: str | None


class RegistryState(NamedTuple):
    """State of a registry: schema texts of our ids, and subjects with missing schemas or left in IMPORT mode."""

    texts: Mapping[int, str]
    lacks: tuple[MissingSchema, ...]


async def compare_registry(client: RegistryClient, subjects: Mapping[str, str]) -> RegistryState:
    """Compare a registry with subject → record; raises ConfigError for a conflict."""
    versions = sorted({one for record in subjects.values() for one in versions_of(record)}, key=_id)
    under_ids = await _all(partial(client.schema, one.schema_id) for one in versions)
    for version, text in zip(versions, under_ids, strict=True):
        if text is not None and not equivalent(text, version.text):
            raise ConfigError(id_conflict(client.url, version, text))
    pairs = [(subject, version) for subject, record in subjects.items() for version in versions_of(record)]
    held = await _all(partial(client.version, subject, version.number) for subject, version in pairs)
    lacking: dict[str, list[Version]] = {subject: [] for subject in subjects}
    for (subject, version), one in zip(pairs, held, strict=True):
        if one is None:
            lacking[subject].append(version)
        elif one.schema_id != version.schema_id:
            raise ConfigError(version_conflict(client.url, subject, version, one))
    modes = await _all(partial(client.mode, subject) for subject in subjects)
    return RegistryState(
        texts={one.schema_id: text for one, text in zip(versions, under_ids, strict=True) if text is not None},
        lacks=tuple(
            MissingSchema(subject, tuple(lacking[subject]), mode)
            for subject, mode in zip(subjects, modes, strict=True)
            if lacking[subject] or mode == IMPORT
        ),
    )


def equivalent(text: str, ours: str) -> bool:
    """Return whether a schema is equivalent to ours; a registry may have reformatted its text."""
    try:
        return canonical(text) == canonical(ours)
    except NoSchema:
        return False


def id_conflict(url: str, version: Version, text: str) -> str:
    """Return the error for an id that belongs to another schema."""
    return (
        f"the schema registry {url} has the schema of {_named(text)} under id {version.schema_id}, which in Headrace's "
        f"records is {_named(version.text)}, version {version.number}. Give Headrace a registry of its own, or a "
        "context of its own in this one: kafka.registry_url = URL/contexts/.headrace"
    )


def version_conflict(url: str, subject: str, version: Version, held: RegisteredVersion) -> str:
    """Return the error for a version with another id."""
    return (
        f"the schema registry {url} has version {version.number} of {subject} as id {held.schema_id} "
        f"({_named(held.text)}), where Headrace's records carry id {version.schema_id} ({_named(version.text)}). A "
        "producer that registers schemas by itself may have put it there: set its auto.register.schemas to false, and "
        "delete the subject for good (DELETE, then DELETE with ?permanent=true)"
    )


def _named(text: str) -> str:
    try:
        return record_name(text)[:200]
    except NoSchema:
        return "something that is not Avro"


def _id(version: Version) -> int:
    return version.schema_id


async def _all(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run calls concurrently; the first error cancels the others."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await call()

    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            for number, call in enumerate(calls):
                tasks.append(group.create_task(one(call), name=f"ask the registry {number}"))
    except* HeadraceError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [task.result() for task in tasks]
