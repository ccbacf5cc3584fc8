"""Every command of the command line with its arguments and options, read from click."""

from __future__ import annotations

from collections.abc import Iterator

import click

from headrace.docs.markdown import table
from headrace.main import main


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that can be run, with its full name such as `headrace queues list`."""
    yield from _walk(main, "headrace")


def commands_table() -> str:
    """List every command in one line each."""
    rows = ([f"[`{path}`](#{path.replace(' ', '-')})", command.get_short_help_str(200)] for path, command in commands())
    return table(["command", "what it does"], rows)


def commands_reference() -> str:
    """Describe every command: usage, help, arguments and options."""
    return "\n".join(_section(path, command) for path, command in commands())


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if (found := command.get_command(context, name)) is not None:
            yield from _walk(found, f"{path} {name}")


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", f"```text\n{usage}\n```", _paragraphs(command.help)]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        parts.append(
            table(["option", "value", "default", "meaning"], (_option(one, context) for one in options)).strip()
        )
    if command.epilog:
        parts.append(f"```text\n{_unmarked(command.epilog)}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def _option(option: click.Option, context: click.Context) -> list[str]:
    names = " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    default = option.get_default(context, call=False)
    shown = "" if default in (None, False, ()) or callable(default) or "UNSET" in repr(default) else f"`{default}`"
    value = "" if option.is_flag else option.make_metavar(ctx=context)
    repeated = " May be repeated." if option.multiple else ""
    variable = f" Variable: `{option.envvar}`." if option.envvar else ""
    return [names, value, shown, f"{option.help or ''}{repeated}{variable}".strip()]


def _paragraphs(text: str | None) -> str:
    """Return help as Markdown: blocks that click must not wrap become code blocks."""
    return "\n\n".join(
        f"```text\n{_unmarked(part)}\n```" if part.startswith("\b") else " ".join(part.split())
        for part in (text or "").split("\n\n")
    )


def _unmarked(text: str) -> str:
    return text.replace("\b\n", "").replace("\b", "").strip("\n")
