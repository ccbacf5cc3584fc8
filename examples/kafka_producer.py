"""Write tasks to Kafka as JSON, without HTTP. Needs the package aiokafka.

    python examples/kafka_producer.py --bootstrap 127.0.0.1:9092 "Give me the opposite of hot." "And of cold?"

The members of a task are described in docs/how-to/produce-to-kafka.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from aiokafka import AIOKafkaProducer


async def produce(options: argparse.Namespace) -> None:
    """Write one record per prompt, and print where each was stored."""
    headers = [("x-owner", options.tenant.encode())] if options.tenant else []
    async with AIOKafkaProducer(
        bootstrap_servers=options.bootstrap,
        acks="all",  # the broker's acknowledgement is the only one: wait for all in-sync replicas
        enable_idempotence=True,  # a retry of the client does not write a task twice
    ) as producer:
        for prompt in options.prompts:
            data = {"model": options.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 32}
            task = {
                "queue": options.queue,
                "endpoint": "/v1/chat/completions",
                "data": data,
                "trace_id": options.trace_id,  # your own reference; it is in the result as well
            }
            topic = f"{options.prefix}tasks.{options.level}"
            stored = await producer.send_and_wait(topic, json.dumps(task).encode(), headers=headers)
            print(f"{stored.topic} partition {stored.partition} offset {stored.offset}")


def main() -> None:
    """Read the options and write the tasks."""
    parser = argparse.ArgumentParser(description="Write tasks to Kafka as JSON.")
    parser.add_argument("prompts", nargs="+", help="questions for the model, one task each")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka broker (default: %(default)s)")
    parser.add_argument("--prefix", default="headrace.", help="kafka.topic_prefix (default: %(default)s)")
    parser.add_argument("--level", choices=("online", "offline"), default="offline", help="default: %(default)s")
    parser.add_argument("--queue", default="demo", help="queue of the tasks (default: %(default)s)")
    parser.add_argument("--model", default="smollm2", help="name of the model (default: %(default)s)")
    parser.add_argument("--trace-id", default="example", help="reference that results repeat (default: %(default)s)")
    parser.add_argument("--tenant", help="tenant of the tasks, where direct.allowed_tenants allows it")
    asyncio.run(produce(parser.parse_args()))


if __name__ == "__main__":
    main()
