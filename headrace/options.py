"""Shared by several commands: the --config option, settings of the local stack, and errors as one sentence."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from core.errors import HeadraceError
from core.settings.environment import text_of
from core.settings.loader import load_settings
from core.settings.models import Settings

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """Add --config PATH."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Settings file; without it ./headrace.toml, if it exists.",
    )(command)


class _KeyOption(click.Option):
    """An option whose environment variable may be given as a file in NAME_FILE."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's signature
        """Return the value of the variable or of its file."""
        assert isinstance(self.envvar, str)  # noqa: S101 - a slip in a declaration, not a state of the world
        with reported():
            return text_of(self.envvar, os.environ)


key_option = partial(click.option, cls=_KeyOption)


class RunsByDefault(click.Group):
    """A group whose default subcommand is `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default subcommand if the first argument is an option."""
        if args and args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def load_here(config: Path | None, flags: Mapping[str, object] | None = None) -> Settings:
    """Load the settings of a command, and print a line for each old name that they use; raises ConfigError."""
    settings = load_settings(config=config, flags=flags)
    for old, new in settings.renamed:
        click.echo(f"Warning: setting {old} is deprecated and will be removed in the next version; use {new}", err=True)
    return settings


def settings_here(config: Path | None) -> Settings:
    """Load the settings of a command that connects to Kafka; raises ConfigError.

    If no broker is configured and a stack of `headrace up` runs in DATA_DIR, its broker is used.
    """
    settings = load_here(config)
    if "bootstrap" in settings.kafka.model_fields_set:
        return settings
    try:
        stack = json.loads((settings.data_dir / "stack.json").read_text())
        bootstrap, pid = stack["kafka"], stack.get("pid")
    except (OSError, ValueError, TypeError, KeyError):
        return settings  # no stack is running
    if isinstance(pid, int) and not _runs(pid):
        return settings  # stale file of a killed stack
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"bootstrap": str(bootstrap)})})


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # under another user
    except (OSError, OverflowError):
        return False
    return True


@contextmanager
def reported() -> Iterator[None]:
    """Print an error as one sentence on stderr and exit with code 1."""
    # The Kafka client's warnings would be printed as well; a role's log handler still gets them.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        yield
    except HeadraceError as error:
        raise click.ClickException(error.message) from error
