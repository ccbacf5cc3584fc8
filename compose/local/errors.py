"""Errors at the start of a local stack."""

from __future__ import annotations

from core.errors import HeadraceError


class LocalStackError(HeadraceError):
    """The local stack cannot run; see the message for what to do next."""

    code = "local_stack"
