"""What commands print: tables as kubectl prints them, one object, or JSON.

A table has a line of heads and a line per row, columns separated by at least three spaces, and no line break within a
row. On a terminal the least important columns are left out until the rest fits its width; `-o wide` shows them all, and
so does output to a file or a pipe, which is stable and can be parsed.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import click
from rich.cells import cell_len, set_cell_size

F = TypeVar("F", bound=Callable[..., Any])
Output = Literal["table", "wide", "json"]
GAP = "   "
SHORTEST_TEXT = 16
"""Cells of a column that may be shortened keep at least so many characters; with less room the column is left out."""


class Column(NamedTuple):
    """One column of a table."""

    head: str
    member: str
    """Name of the member of a row, dotted for members of members."""
    rank: int = 0
    """0 is always shown; on a narrow terminal the highest rank is left out first."""
    text: bool = False
    """Free text, such as a reason: shortened on a narrow terminal before it is left out. Never an id or a name."""


def output_option(command: F) -> F:
    """Add -o/--format, and the older --json; the command gets `output`."""

    @functools.wraps(command)
    def run(*args: Any, output: Output, as_json: bool, **options: Any) -> Any:
        return command(*args, output="json" if as_json else output, **options)

    formatted = click.option(
        "-o",
        "--format",
        "output",
        type=click.Choice(["table", "wide", "json"]),
        default="table",
        help="wide shows every column, json is for programs.  [table]",
    )
    return formatted(click.option("--json", "as_json", is_flag=True, hidden=True)(run))  # type: ignore[return-value]  # the same command with one option more


def json_output(command: F) -> F:
    """Add --json to a command that prints no table; the command gets `as_json`. `-o json` means the same."""

    @functools.wraps(command)
    def run(*args: Any, output: str | None, as_json: bool, **options: Any) -> Any:
        return command(*args, as_json=as_json or output == "json", **options)

    formatted = click.option("-o", "--format", "output", type=click.Choice(["text", "json"]), hidden=True)
    return formatted(click.option("--json", "as_json", is_flag=True, help="Print JSON.")(run))  # type: ignore[return-value]  # as above


def show(value: object, *, as_json: bool, sentence: str) -> None:
    """Print the result of a command: as JSON, or as a sentence."""
    click.echo(json.dumps(value, indent=2) if as_json else sentence)


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, output: Output, nothing: str) -> None:
    """Print rows as a table or as a JSON list; without rows a table is the sentence `nothing`."""
    if output == "json":
        click.echo(json.dumps(list(rows), indent=2))
    elif not rows:
        click.echo(nothing)
    else:
        cells = [[cell(_member(row, column.member)) for column in columns] for row in rows]
        print_lines(table_lines(columns, cells, width=None if output == "wide" else terminal_width()))


def show_members(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one object, a line for each member."""
    if as_json:
        click.echo(json.dumps(value, indent=2))
        return
    widest = max(map(len, value), default=0)
    print_lines(f"{name + ':':<{widest + 1}}{GAP}{cell(member)}".rstrip() for name, member in value.items())


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output."""
    for line in lines:
        click.echo(line)


def terminal_width() -> int | None:
    """Return the width of the terminal that standard output is, in characters; None when it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None) -> list[str]:
    """Lay out a table.

    Args:
        columns: what the cells of a row are, in order.
        rows: the cells; control characters are replaced.
        width: characters a line may have; None: no limit. Columns of rank 0 are shown whole, whatever the width.
    """
    clean = [[_printable(text) for text in row] for row in rows]
    sizes = [
        max(cell_len(text) for text in (column.head.upper(), *(row[at] for row in clean)))
        for at, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if width is not None:
        while (excess := sum(sizes[at] for at in shown) + len(GAP) * (len(shown) - 1) - width) > 0:
            texts = [at for at in shown if columns[at].text and sizes[at] - excess >= SHORTEST_TEXT]
            if texts:
                sizes[texts[-1]] -= excess
                break
            last = max(shown, key=lambda at: (columns[at].rank, at))
            if columns[last].rank == 0:
                break
            shown.remove(last)
    heads = [column.head.upper() for column in columns]
    return [GAP.join(_fitted(row[at], sizes[at]) for at in shown).rstrip() for row in ([heads, *clean])]


def cell(value: object) -> str:
    """Render a value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _fitted(text: str, size: int) -> str:
    return set_cell_size(text, size - 1) + "…" if cell_len(text) > size else set_cell_size(text, size)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "�" for one in text)


def _member(row: Mapping[str, Any], dotted: str) -> object:
    value: Any = row
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
