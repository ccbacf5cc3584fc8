"""The admin API as the commands use it: one call, its answer or a sentence, and tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import click
import httpx
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from core.errors import HeadraceError

TIMEOUT = httpx.Timeout(90, connect=5)
"""Longer than the longest wait that a route allows."""
PAGE = 100

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class ApiError(HeadraceError):
    """The API has refused the request."""


class Unreachable(HeadraceError):
    """The ingress does not answer."""


class Api:
    """One ingress under one key with the scope admin."""

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}"}
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=TIMEOUT, transport=transport)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise ApiError(f"{url!r} is no URL that can be called: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """Ask; what is None is left out of the query."""
        return self._call("GET", path, params={k: str(v) for k, v in query.items() if v is not None})

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """Do."""
        return self._call("POST", path, json=_given(body))

    def patch(self, path: str, body: Mapping[str, object]) -> Any:
        """Change."""
        return self._call("PATCH", path, json=_given(body))

    def pages(self, path: str, *, most: int, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list over as many pages as it takes."""
        after, left = None, most
        while left > 0:
            page = self.get(path, after=after, limit=min(left, PAGE), **query)
            yield from page["data"]
            left -= len(page["data"])
            after = page["next_cursor"]
            if after is None:
                return

    def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = self._http.request(method, f"/v1/admin/{path}", **request)
        except httpx.TransportError as error:
            raise Unreachable(
                f"the ingress at {self._url} does not answer: {str(error) or type(error).__name__}"
            ) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ApiError(f"{self._url!r} is no URL that can be called: {error}") from None
        if response.is_success:
            return response.json()
        raise ApiError(_message(response))


def named(text: str) -> str:
    """Return a name as a segment of a path."""
    return quote(text, safe="")


def show(value: object, *, as_json: bool, sentence: str) -> None:
    """Print what came of a command: the answer for programs, a sentence for people."""
    click.echo(json.dumps(value, indent=2) if as_json else sentence)


def show_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool, nothing: str) -> None:
    """Print rows as JSON or as a table; `columns` maps its heads to members, which may be dotted."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo(nothing)
        return
    # Folded, because a name that is cut off cannot be copied.
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        table.add_row(*(Text(cell(_member(row, member))) for member in columns.values()))
    Console().print(table)


def show_members(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, a line for each member."""
    if as_json:
        click.echo(json.dumps(value, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, member in value.items():
        table.add_row(Text(name), Text(cell(member)))
    Console().print(table)


def cell(value: object) -> str:
    """Render a value for people."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _member(row: Mapping[str, Any], dotted: str) -> object:
    value: Any = row
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _given(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url.host} answered {response.status_code}; is it a Headrace ingress?"
