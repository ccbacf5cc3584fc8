"""What several commands share: the --config option, and errors as one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from core.errors import HeadraceError

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """Add --config PATH."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Settings file; without it ./headrace.toml, when there is one.",
    )(command)


@contextmanager
def reported() -> Iterator[None]:
    """Turn an error of ours into its sentence on stderr and exit code 1."""
    # The client's own warnings would stand beside the sentence; a role's log handler still gets them.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        yield
    except HeadraceError as error:
        raise click.ClickException(error.message) from error
