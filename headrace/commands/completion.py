"""`headrace completion`: shell completion of commands and options.

Apart, because every command has a module of its own.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_HEADRACE_COMPLETE"
"""The variable that click's generated script sets when the shell asks for candidates."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in a shell.

    \b
    bash: add to ~/.bashrc               eval "$(headrace completion bash)"
    zsh:  add to ~/.zshrc                eval "$(headrace completion zsh)"
    fish: write it once as  headrace completion fish > ~/.config/fish/completions/headrace.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has a class for each of the three
    click.echo(found(click.get_current_context().find_root().command, {}, "headrace", VARIABLE).source())
