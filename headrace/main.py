"""The command line. Each command's module is imported only when it runs: a role loads nothing of another role."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click


class Command(NamedTuple):
    """Where a command is defined, and its line in the overview."""

    module: str
    attribute: str
    help: str


COMMANDS: Mapping[str, Command] = {
    "up": Command("headrace.commands.up", "up", "Start the whole stack on this machine."),
    "ingress": Command("headrace.commands.roles", "ingress", "Run the HTTP side."),
    "streams": Command("headrace.commands.roles", "streams", "Run the scheduler."),
    "dispatcher": Command(
        "headrace.commands.roles", "dispatcher", "Run the inference consumers and the webhook sender."
    ),
    "replay": Command("headrace.commands.replay", "replay", "Run past tasks again, and compare what they answer."),
    "batches": Command("headrace.commands.batches", "batches", "Run thousands of requests from a file."),
    "webhooks": Command("headrace.commands.webhooks", "webhooks", "Look at callbacks and send them again."),
    "queues": Command("headrace.commands.queues", "queues", "Pause, limit and purge queues."),
    "tasks": Command("headrace.commands.tasks", "tasks", "Look at tasks of all tenants, cancel and repeat them."),
    "dead-letters": Command(
        "headrace.commands.dead_letters", "dead_letters", "Look at dead letters and send them back."
    ),
    "workers": Command("headrace.commands.workers", "workers", "Look at the processes that do the work."),
    "doctor": Command("headrace.commands.doctor", "doctor", "Say what is stuck, why, and what to do."),
    "topics": Command("headrace.commands.topics", "topics", "Create or compare the Kafka topics."),
    "keys": Command("headrace.commands.keys", "keys", "Make, hash and list API keys."),
    "config": Command("headrace.commands.config", "config", "Show the effective settings."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the overview."""
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a slip in the table above, not a state of the world
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the overview from the table, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headrace", prog_name="headrace")
def main() -> None:
    """Headrace: an inference task queue on Kafka."""


if __name__ == "__main__":
    main(prog_name="headrace")
