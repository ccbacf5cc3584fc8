"""One example for each command: the last lines of its --help, and of its section in the reference.

Apart, because the command line, its documentation and a test read the table without importing any command.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import click

EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "up": "headrace up --port 8080",
        "ingress": "headrace ingress --host 0.0.0.0 --config headrace.toml",
        "streams": "headrace streams --level online",
        "dispatcher": "headrace dispatcher --component inference --metrics-port 9100",
        "replay run": "headrace replay run --queue chat --from 2h --queue-to chat-shadow",
        "replay diff": "headrace replay diff nightly --out differences.jsonl",
        "replay serve": "headrace replay serve chat-shadow --upstream http://127.0.0.1:8001/v1 --drain",
        "replay read-model": "headrace replay read-model",
        "batches submit": "headrace batches submit requests.jsonl --model smollm2 --wait --output results.jsonl",
        "batches list": "headrace batches list -o wide",
        "batches show": "headrace batches show batch_0193f5a1c2d37c4a8d5e6f708192a3b4",
        "batches cancel": "headrace batches cancel batch_0193f5a1c2d37c4a8d5e6f708192a3b4",
        "batches output": "headrace batches output batch_0193f5a1c2d37c4a8d5e6f708192a3b4 --errors",
        "webhooks list": "headrace webhooks list --state failed --host hooks.example.com",
        "webhooks resend": "headrace webhooks resend 0193f5a1-c2d3-7c4a-8d5e-6f708192a3b4",
        "webhooks redrive": "headrace webhooks redrive --host hooks.example.com --dry-run",
        "queues list": "headrace queues list -o wide",
        "queues show": "headrace queues show chat",
        "queues register": "headrace queues register chat --concurrency 8 --max-depth 1000",
        "queues pause": "headrace queues pause chat",
        "queues resume": "headrace queues resume chat",
        "queues set": "headrace queues set chat --concurrency 16",
        "queues purge": "headrace queues purge chat --level offline --yes",
        "tasks list": "headrace tasks list --status failed,expired --queue chat -o wide",
        "tasks show": "headrace tasks show 0193f5a1-c2d3-7c4a-8d5e-6f708192a3b4",
        "tasks cancel": "headrace tasks cancel 0193f5a1-c2d3-7c4a-8d5e-6f708192a3b4",
        "tasks requeue": "headrace tasks requeue 0193f5a1-c2d3-7c4a-8d5e-6f708192a3b4 --wait 30",
        "dead-letters list": "headrace dead-letters list --topic tasks.online",
        "dead-letters show": "headrace dead-letters show 2-17",
        "dead-letters redrive": "headrace dead-letters redrive --reason 'is not registered' --dry-run",
        "dead-letters purge": "headrace dead-letters purge --up-to 2-17",
        "workers list": "headrace workers list -o json",
        "doctor": "headrace doctor",
        "topics apply": "headrace topics apply --config headrace.toml",
        "topics diff": "headrace topics diff --config headrace.toml",
        "topics asyncapi": "headrace topics asyncapi > asyncapi.json",
        "keys new": "headrace keys new --tenant shop --scope submit --scope read",
        "keys hash": "headrace keys hash < key.txt",
        "keys list": "headrace keys list -o wide",
        "config print": "headrace config print > headrace.toml",
        "config variables": "headrace config variables timeout",
        "completion": 'eval "$(headrace completion bash)"',
    }
)
"""Command without `headrace` → one line that can be pasted into a shell."""


def add_examples(name: str, command: click.Command) -> None:
    """Set the epilog of a command, or of all commands of a group, to its example."""
    if isinstance(command, click.Group):
        for child, found in command.commands.items():
            add_examples(f"{name} {child}", found)
    elif (example := EXAMPLES.get(name)) is not None:
        command.epilog = f"\b\nExample:\n  {example}"
