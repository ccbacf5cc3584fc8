"""The dialect of a path: the form of errors that the clients of its API can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response


class ApiProblem(NamedTuple):
    """An error before it has a form."""

    status: int
    code: str
    """Machine-readable, such as not_found."""
    message: str
    field: str | None = None
    """The member, header or parameter that is wrong."""
    task_id: str | None = None
    headers: Mapping[str, str] = {}


class ErrorRenderer(Protocol):
    """Gives an error the form of one dialect."""

    def __call__(self, problem: ApiProblem) -> Response:
        """Build the answer."""


Chooser = Callable[[Request], ErrorRenderer | None]
"""Finds the renderer where clients choose their dialect by a header; None below all other paths."""


class Dialects:
    """Renderers by path; the longest prefix of whole segments wins."""

    def __init__(self, default: ErrorRenderer, by_prefix: Mapping[str, ErrorRenderer]) -> None:
        self._default = default
        self._by_prefix = sorted(by_prefix.items(), key=lambda item: -len(item[0]))

    def of(self, path: str) -> ErrorRenderer:
        """Return the renderer for a path."""
        for prefix, renderer in self._by_prefix:
            if path == prefix or path.startswith(f"{prefix}/"):
                return renderer
        return self._default
