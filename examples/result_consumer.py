"""Read results from Kafka. Needs the packages aiokafka and fastavro.

    python examples/result_consumer.py --bootstrap 127.0.0.1:9092 --trace-id example --count 2

Values are Avro with a header of five bytes: a zero and the id of the schema, which the ingress serves like a schema
registry. With Confluent's client libraries an Avro deserializer does the same: docs/how-to/produce-to-kafka.md.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import urllib.request
from functools import lru_cache
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer


@lru_cache
def schema(registry: str, schema_id: int) -> Any:
    """Fetch a schema from the registry, once per id."""
    with urllib.request.urlopen(f"{registry}/schemas/ids/{schema_id}", timeout=30) as response:
        return fastavro.parse_schema(json.loads(json.load(response)["schema"]))


def decode(registry: str, value: bytes) -> Any:
    """Decode one framed record."""
    if value[0] != 0:
        raise ValueError("the value is not framed Avro")
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), schema(registry, int.from_bytes(value[1:5], "big")), None)


async def consume(options: argparse.Namespace) -> None:
    """Print results as JSON lines until enough were found."""
    async with AIOKafkaConsumer(
        f"{options.prefix}results.online",
        f"{options.prefix}results.offline",
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    ) as consumer:
        found = 0
        async for record in consumer:
            result = await asyncio.to_thread(decode, options.registry, record.value)
            if options.trace_id in (None, result["trace_id"]):
                # A large body is in the object store: then `body` is null and `body_ref` names it.
                body = result["body"].decode(errors="replace") if result["body"] is not None else result["body_ref"]
                shown = {name: result[name] for name in ("id", "state", "status_code", "error_code", "trace_id")}
                print(json.dumps({**shown, "body": body}), flush=True)
                found += 1
            await consumer.commit()  # after the result was processed, so a crash repeats it and loses none
            if found == options.count:
                return


def main() -> None:
    """Read the options and consume."""
    parser = argparse.ArgumentParser(description="Print results of tasks from Kafka as JSON lines.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka broker (default: %(default)s)")
    parser.add_argument("--registry", default="http://127.0.0.1:8080", help="the ingress (default: %(default)s)")
    parser.add_argument("--prefix", default="headrace.", help="kafka.topic_prefix (default: %(default)s)")
    parser.add_argument("--group", default="example-results", help="consumer group (default: %(default)s)")
    parser.add_argument("--trace-id", help="print only results of tasks with this trace_id")
    parser.add_argument("--count", type=int, help="stop after this many results")
    asyncio.run(consume(parser.parse_args()))


if __name__ == "__main__":
    main()
