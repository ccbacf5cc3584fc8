"""The AsyncAPI document of a deployment: topic names, partitions and topic settings."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from core.settings.models import Settings
from schemas import asyncapi


def document(settings: Settings, *, bootstrap: str | None = None) -> dict[str, Any]:
    """Return the document; it contains the broker address only if one is given."""
    kafka = settings.kafka
    return asyncapi.document(
        version=version("headrace"),
        prefix=kafka.topic_prefix,
        partitions=kafka.partitions,
        work_partitions=kafka.work_partitions,
        replicas=kafka.replication_factor,
        max_message_bytes=kafka.max_message_bytes,
        min_insync_replicas=kafka.min_insync_replicas,
        bootstrap=bootstrap,
    )
