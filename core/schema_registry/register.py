"""Register our schemas with our ids in an external registry, by its IMPORT mode.

For each subject with missing versions: set the mode to IMPORT, register the versions with their ids, restore the mode.
All steps are idempotent, and two concurrent runs are safe: a run that finds the mode reset sets it again. A killed run
leaves a subject in IMPORT mode, in which the registry rejects schemas without an id; the next run restores it.
"""

from __future__ import annotations

from collections.abc import Callable

from core.errors import ConfigError
from core.kafka.admin import Change, admin, partition_counts
from core.schema_registry.client import NotPermitted, RegistryClient, RegistryResponse
from core.schema_registry.diff import IMPORT, MissingSchema, RegistryState, compare_registry
from core.settings.models import Settings
from schemas.subjects import subjects

RETRY_TIMEOUT_S = 30.0
"""Retry time of each call while the registry is unavailable: about its start-up time."""
TRIES = 4
"""Maximum retries when a concurrent run resets the mode."""
READWRITE = "READWRITE"
CLOSED = ("READONLY", "READONLY_OVERRIDE", "FORWARD")
NO_ROUTE = (404, 405, 501)

Say = Callable[[str], None]


async def register_schemas(settings: Settings, *, say: Say, retry_timeout_s: float = RETRY_TIMEOUT_S) -> list[Change]:
    """Register missing schemas in the configured registry; returns the changes. Does nothing without one.

    Raises Unavailable when it cannot be reached, ConfigError for permanent errors.
    """
    if not settings.kafka.registry_url:
        return []
    wanted = await wanted_subjects(settings)
    async with RegistryClient(settings, retry_timeout_s=retry_timeout_s) as client:
        return await register(client, wanted, say=say)


async def lacking_schemas(settings: Settings, *, retry_timeout_s: float = RETRY_TIMEOUT_S) -> list[Change]:
    """List the schemas missing in the configured registry; read-only."""
    if not settings.kafka.registry_url:
        return []
    wanted = await wanted_subjects(settings)
    async with RegistryClient(settings, retry_timeout_s=retry_timeout_s) as client:
        found = await compare_registry(client, wanted)
    return [change for lack in found.lacks for change in _changes(lack)]


async def wanted_subjects(settings: Settings) -> dict[str, str]:
    """Return subject → record for the declared topics and the existing work topics."""
    async with admin(settings) as client:
        there = await partition_counts(client)  # all topics: work topics are not declared one by one
    return subjects(prefix=settings.kafka.topic_prefix, existing=there, reply_topics=settings.direct.reply_topics)


async def register(client: RegistryClient, wanted: dict[str, str], *, say: Say) -> list[Change]:
    """Register each subject of subject → record."""
    found = await compare_registry(client, wanted)
    if found.lacks:
        say(f"schema registry {client.url}: {len(found.lacks)} of {len(wanted)} subjects to be registered")
    done = []
    for lack in found.lacks:
        await _register_missing(client, lack, found)
        done += _changes(lack)
        registered = ", ".join(f"version {one.number} as id {one.schema_id}" for one in lack.versions)
        say(f"  {lack.subject}: {registered or 'left IMPORT mode'}")
    return done


async def _register_missing(client: RegistryClient, lack: MissingSchema, found: RegistryState) -> None:
    """Register the missing schemas of one subject, and restore its mode."""
    # An IMPORT mode on the subject was left by a killed run: nothing else sets it on our subjects.
    before = None if lack.mode == IMPORT else lack.mode
    try:
        for attempt in range(1, TRIES + 1):
            try:
                await _set_import_mode(client, lack)
                await _import(client, lack, found)
                break
            except NotPermitted:
                if attempt == TRIES:
                    raise
    finally:
        if await client.mode(lack.subject) == IMPORT:
            await _restore(client, lack.subject, before)


async def _set_import_mode(client: RegistryClient, lack: MissingSchema) -> None:
    """Set a subject to IMPORT mode."""
    mode = await client.mode(lack.subject, in_force=True)
    if mode in CLOSED:
        raise ConfigError(
            f"the schema registry {client.url} is {mode} for {lack.subject}, which lacks schemas: make it writable, or "
            "run this against the registry that it follows"
        )
    if mode == IMPORT or not lack.versions:
        return
    answer = await client.set_mode(lack.subject, IMPORT)
    if not answer.ok:
        raise ConfigError(_no_import(client, answer))


def _no_import(client: RegistryClient, answer: RegistryResponse) -> str:
    if answer.status in NO_ROUTE:
        why = f"the schema registry {client.url} has no IMPORT mode (PUT /mode answers {answer.status})"
    else:
        why = client.refusal("the mode IMPORT", answer)
    return (
        f"{why}, so it cannot take schemas under the ids in Headrace's records. Use a registry that can "
        "(Confluent's with mode.mutability=true, or another with an import mode), or leave kafka.registry_url unset "
        "and point your tools to the ingress, which serves these schemas itself"
    )


async def _import(client: RegistryClient, lack: MissingSchema, found: RegistryState) -> None:
    for version in lack.versions:
        # An existing text is sent back unchanged: a registry accepts only one text per id.
        text = found.texts.get(version.schema_id, version.text)
        got = await client.register(lack.subject, version=version.number, schema_id=version.schema_id, text=text)
        if got != version.schema_id:
            raise ConfigError(
                f"the schema registry {client.url} gave version {version.number} of {lack.subject} the id {got} and "
                f"not {version.schema_id}, which Headrace's records carry: it ignores given ids, so it cannot be used. "
                "Delete the subject there, and leave kafka.registry_url unset"
            )


async def _restore(client: RegistryClient, subject: str, before: str | None) -> None:
    if before is None:
        answer = await client.unset_mode(subject)
        if answer.ok or answer.code == 40401:  # a concurrent run has done it
            return
    answer = await client.set_mode(subject, before or READWRITE)
    if not answer.ok:
        raise ConfigError(f"{client.refusal(f'the mode {before or READWRITE}', answer)}; {subject} is left in {IMPORT}")


def _changes(lack: MissingSchema) -> list[Change]:
    missing = [
        Change(lack.subject, "schema", "missing", f"version {one.number}, id {one.schema_id}") for one in lack.versions
    ]
    return missing or [Change(lack.subject, "mode", IMPORT, "as the registry's")]
