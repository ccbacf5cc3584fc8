"""The command line. Each command's module is imported when it runs: a role loads nothing of another role."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click

from headrace.examples import add_examples


class Command(NamedTuple):
    """Module and attribute of a command, and its line in the overview."""

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
    "replay": Command("headrace.commands.replay", "replay", "Repeat past tasks, and compare the results."),
    "batches": Command("headrace.commands.batches", "batches", "Run thousands of requests from a file."),
    "webhooks": Command("headrace.commands.webhooks", "webhooks", "List webhook deliveries and resend them."),
    "queues": Command("headrace.commands.queues", "queues", "List, pause, limit and purge queues."),
    "tasks": Command("headrace.commands.tasks", "tasks", "List, cancel and requeue tasks of all tenants."),
    "dead-letters": Command("headrace.commands.dead_letters", "dead_letters", "List, redrive and purge dead letters."),
    "workers": Command("headrace.commands.workers", "workers", "List the processes that run tasks."),
    "doctor": Command("headrace.commands.doctor", "doctor", "Report what is stuck, why, and the next step."),
    "topics": Command("headrace.commands.topics", "topics", "Create or compare the Kafka topics."),
    "keys": Command("headrace.commands.keys", "keys", "Create, hash and list API keys."),
    "config": Command("headrace.commands.config", "config", "Show the effective settings."),
    "completion": Command("headrace.commands.completion", "completion", "Print a shell completion script."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

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
        add_examples(cmd_name, command)
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
