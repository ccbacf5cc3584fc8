"""Confluent's own registry client asks the ingress what an id stands under."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from tests.support.site import Site


async def test_a_stock_client_finds_what_a_schema_id_stands_under(site: Site) -> None:
    client = SchemaRegistryClient({"url": site.urls[0]})
    subject = site.settings.topic("tasks.offline-value")

    def ask() -> None:
        newest = client.get_latest_version(subject)
        found = client.get_subjects_by_schema_id(newest.schema_id)
        assert subject in found
        assert client.get_subjects_by_schema_id(newest.schema_id, subject_name=subject, deleted=True) == [subject]
        assert client.get_subjects_by_schema_id(newest.schema_id, offset=1, limit=1) == found[1:2]
        versions = client.get_schema_versions(newest.schema_id, subject_name=subject)
        assert [(one.subject, one.version) for one in versions] == [(subject, newest.version)]
        with pytest.raises(SchemaRegistryError) as raised:
            client.get_subjects_by_schema_id(999)
        assert (raised.value.http_status_code, raised.value.error_code) == (404, 40403)

    await asyncio.to_thread(ask)
