"""Command lines without running them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from headrace.main import main


def parsed(arguments: Sequence[str]) -> click.Command:
    """Let click parse a command line; an unknown command, flag or value raises click.UsageError."""
    command: click.Command = main
    left = list(arguments)
    parent = None
    while True:
        parent = command.make_context(command.name, left, parent=parent)
        if not isinstance(command, click.Group):
            return command
        _, found, left = command.resolve_command(parent, [*parent._protected_args, *parent.args])
        assert found is not None
        command = found
