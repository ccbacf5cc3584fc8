"""Old names of settings: accepted for one version, in files, variables and flags, and reported when used.

Apart from the loader, because the environment, the loader and the documentation read the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from core.errors import ConfigError

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "ingress.max_waiting": "ingress.max_blocking_requests",
        "ingress.queue_max_waiting": "ingress.default_max_depth",
        "ingress.hold_s": "ingress.blocking_timeout_s",
        "batches.window": "batches.max_in_flight",
        "streams.idempotency_s": "streams.idempotency_window_s",
        "webhooks.disable_s": "webhooks.gone_ttl_s",
        "dispatcher.grace_s": "dispatcher.shutdown_grace_s",
        "dispatcher.only": "dispatcher.component",
        "direct.owner": "direct.default_tenant",
        "direct.owners": "direct.allowed_tenants",
        "uploads.image_bytes": "dify.max_image_bytes",
        "uploads.audio_bytes": "dify.max_audio_bytes",
        "uploads.video_bytes": "dify.max_video_bytes",
        "uploads.other_bytes": "dify.max_other_bytes",
        "uploads.per_request": "dify.max_files_per_request",
        "uploads.retention_s": "dify.upload_retention_s",
    }
)
"""Old dotted name → new dotted name."""
RENAMED_MEMBERS: Mapping[str, Mapping[str, str]] = MappingProxyType({"queues": {"max_waiting": "max_depth"}})
"""Table → old member of an entry → new member."""


def with_new_names(nested: Mapping[str, Any], *, source: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nested settings under their new names, and the pairs of old and new dotted names that were replaced.

    What is not a table where one is expected is left as it is: validation reports it.

    Raises:
        ConfigError: the source has both the old and the new name of a setting.
    """
    out = {name: dict(value) if isinstance(value, Mapping) else value for name, value in nested.items()}
    found: list[tuple[str, str]] = []
    for old, new in RENAMED.items():
        (section, field), (new_section, new_field) = old.split("."), new.split(".")
        if not isinstance(given := out.get(section), dict) or field not in given:
            continue
        target = out.setdefault(new_section, {})
        if not isinstance(target, dict):
            continue
        if new_field in target:
            raise ConfigError(f"{old} and {new} are both set in {source}; {old} is the old name of {new}, remove it")
        target[new_field] = given.pop(field)
        found.append((old, new))
        if not given:
            del out[section]
    for table, members in RENAMED_MEMBERS.items():
        if isinstance(entries := out.get(table), dict):
            for name, entry in entries.items():
                if isinstance(entry, Mapping):
                    entries[name] = _renamed_entry(entry, f"{table}.{name}", members, source, found)
    return out, found


def _renamed_entry(
    entry: Mapping[str, Any], path: str, members: Mapping[str, str], source: str, found: list[tuple[str, str]]
) -> dict[str, Any]:
    out = dict(entry)
    for old, new in members.items():
        if old in out:
            if new in out:
                raise ConfigError(
                    f"{path}.{old} and {path}.{new} are both set in {source}; {old} is the old name of {new}, remove it"
                )
            out[new] = out.pop(old)
            found.append((f"{path}.{old}", f"{path}.{new}"))
    return out
