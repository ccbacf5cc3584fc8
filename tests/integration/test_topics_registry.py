"""`headrace topics` and an outside registry: told once, compared, and never in the way of Kafka."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import SchemaRegistryClient

from headrace.commands.topics import topics
from schemas.codec import registry
from tests.support.kafka import own_prefix
from tests.support.ports import free_port
from tests.support.roles import settings_for
from tests.support.schema_registry import RegistryDouble, schema_registry


@pytest.fixture
def there() -> Iterator[RegistryDouble]:
    double = RegistryDouble(user="headrace:sesame-7")
    with schema_registry(double):
        yield double


@pytest.fixture
async def environ(kafka: str, tmp_path: Path, there: RegistryDouble) -> AsyncIterator[dict[str, str]]:
    settings, environ = settings_for(
        kafka,
        tmp_path,
        f"registry-{time.time_ns()}.",
        kafka__partitions=1,
        kafka__request_timeout_s=30,
        kafka__registry_url=there.url,
        kafka__registry_user="headrace",
        kafka__registry_password="sesame-7",
    )
    async with own_prefix(settings):
        yield environ


def run(environ: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(topics, arguments, env=environ)


def test_apply_tells_the_registry_and_can_be_repeated(environ: dict[str, str], there: RegistryDouble) -> None:
    prefix = environ["HEADRACE_KAFKA_TOPIC_PREFIX"]
    first = run(environ, "apply", "--json")
    assert first.exit_code == 0, first.output
    registered = [change for change in json.loads(first.stdout) if change["what"] == "schema"]
    subject = f"{prefix}results.online-value"
    assert {"topic": subject, "what": "schema", "was": "missing", "wanted": "version 2, id 14"} in registered
    assert f"  {subject}: version 1 as id 5, version 2 as id 14\n" in first.stderr
    assert set(there.main.schemas) == set(registry())
    stock = SchemaRegistryClient({"url": there.url, "basic.auth.user.info": "headrace:sesame-7"})
    assert stock.get_latest_version(subject).schema_id == 14

    again = run(environ, "apply")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "All topics are as declared.\n", "")
    assert run(environ, "diff").exit_code == 0
    del there.main.subjects[subject]
    missing = run(environ, "diff", "--json")
    assert missing.exit_code == 1
    assert [change["topic"] for change in json.loads(missing.stdout)] == [subject, subject]

    there.main.schemas[14] = json.dumps({"type": "fixed", "name": "Else", "size": 2})
    wrong = run(environ, "apply")
    assert wrong.exit_code == 1
    assert "Else under id 14" in wrong.stderr
    assert "Traceback" not in wrong.output


def test_without_its_topics_the_registry_is_not_asked(environ: dict[str, str], there: RegistryDouble) -> None:
    dead = {"HEADRACE_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}", "HEADRACE_KAFKA_REQUEST_TIMEOUT_S": "1"}
    assert run(environ | dead, "apply").exit_code == 1
    assert there.calls == []
