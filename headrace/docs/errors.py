"""Error codes: those of HTTP answers, read from the exception classes, and those of tasks."""

from __future__ import annotations

import ast
from typing import Any

from dispatcher.inference.outcome import Failure
from headrace.docs.markdown import first_line, sources, table

NO_ANSWERS = ("config_error", "local_stack", "result_gone")
"""Codes of errors that end a start or a delivery, and that no HTTP response has."""


def error_codes_table() -> str:
    """List the codes of the exceptions that the HTTP side answers with, their status and meaning."""
    classes = _exception_classes()
    rows = sorted(
        {
            (
                str(_inherited(classes, name, "http_status")),
                f"`{code}`",
                "yes" if _inherited(classes, name, "retriable") else "no",
                about,
            )
            for name, (_, members, about) in classes.items()
            if (code := members.get("code")) and code not in NO_ANSWERS
        }
    )
    return table(
        ["code", "status", "retriable", "meaning"],
        ([code, status, retriable, about] for status, code, retriable, about in rows),
    )


def outcome_codes_table() -> str:
    """List the codes of attempts that ended without a usable response, as the dispatcher reports them."""
    rows = (
        [f"`{rule.code}`", str(rule.status), "yes" if rule.retriable else "no", _sentence(rule.message)]
        for rule in (failure.value for failure in Failure)
    )
    return table(["code", "status", "tried again", "meaning"], rows)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


_Class = tuple[list[str], dict[str, Any], str]
"""Bases, literal members of the class body, and the first line of the docstring."""


def _exception_classes() -> dict[str, _Class]:
    """Return the classes that are HeadraceError or derive from it, whichever module they are in."""
    found: dict[str, _Class] = {}
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                found.setdefault(node.name, (bases, _members(node), first_line(ast.get_docstring(node))))
    return {name: one for name, one in found.items() if _derives(found, name)}


def _derives(classes: dict[str, _Class], name: str) -> bool:
    return name == "HeadraceError" or any(_derives(classes, base) for base in classes.get(name, ([], {}, ""))[0])


def _members(node: ast.ClassDef) -> dict[str, Any]:
    return {
        target.id: statement.value.value
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }


def _inherited(classes: dict[str, _Class], name: str, member: str) -> Any:
    bases, members, _ = classes[name]
    if member in members:
        return members[member]
    return next((_inherited(classes, base, member) for base in bases if base in classes), None)
