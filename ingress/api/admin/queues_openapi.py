"""The admin routes of queues as OpenAPI."""

from __future__ import annotations

from typing import Any

from ingress.api.admin.openapi_parts import (
    LEVEL,
    TEXT,
    TIME,
    TRUTH,
    WAIT,
    WHOLE,
    answer,
    body,
    error,
    listed,
    operation,
    paging,
    path,
)

_QUEUE = {"$ref": "#/components/schemas/AdminQueue"}
_NAME = path("queue", "The name of the queue.")
_SETTINGS = {
    "paused": TRUTH | {"description": "Nothing of the queue is handed out while this is set."},
    "width": WHOLE | {"minimum": 0, "description": "Partitions its tasks spread over; 0 for all. It only grows."},
    "concurrency": WHOLE
    | {"minimum": 0, "maximum": 100_000, "description": "Most calls at once per dispatcher; 0 for no limit."},
    "result_retention_s": WHOLE
    | {"minimum": 0, "maximum": 604_800, "description": "For tasks that name none; 0 for the general setting."},
    "max_waiting": WHOLE
    | {"minimum": 0, "maximum": 1_000_000_000, "description": "Tasks of a level that may wait; beyond it 429. 0: any."},
}
_EXAMPLE = {
    "object": "queue",
    "name": "chat",
    "number": 1827364554,
    "endpoint": "/v1/chat/completions",
    "owner": "default",
    "created_at": "2026-01-31T12:00:00Z",
    "registered_by": "name",
    "served_by": "dispatcher",
    "paused": False,
    "width": 0,
    "concurrency": 8,
    "result_retention_s": None,
    "max_waiting": 1000,
    "waiting": {"online": 3, "offline": 120},
}
_SHOWN = {"schema": _QUEUE, "example": _EXAMPLE}
_MISSING = error("There is no such queue.")


def paths() -> dict[str, Any]:
    """Describe the routes."""
    return {
        "/v1/admin/queues": {"get": _list(), "post": _register()},
        "/v1/admin/queues/{queue}": {"get": _show(), "patch": _change()},
        "/v1/admin/queues/{queue}/purge": {"post": _purge()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies."""
    lanes = {"type": "object", "properties": {"online": WHOLE, "offline": WHOLE}}
    waiting = {"oneOf": [lanes, {"type": "null"}], "description": "What no dispatcher has taken; null if not known."}
    properties = {
        "object": {"const": "queue"},
        "name": TEXT,
        "number": WHOLE | {"description": "The number in the ids of its tasks."},
        "endpoint": {"type": ["string", "null"]},
        "owner": {"type": ["string", "null"], "description": "The tenant that registered it."},
        "created_at": TIME,
        "registered_by": {"enum": ["name", "first task"]},
        "served_by": {"enum": ["dispatcher", "workers"]},
        "paused": TRUTH,
        "width": WHOLE,
        "concurrency": {"type": ["integer", "null"]},
        "result_retention_s": {"type": ["integer", "null"]},
        "max_waiting": {"type": ["integer", "null"], "description": "What counts, by the settings too; null for any."},
        "waiting": waiting,
    }
    return {"AdminQueue": {"type": "object", "properties": properties}}


def _list() -> dict[str, Any]:
    return operation(
        "adminListQueues",
        "List the queues",
        "By name, with how much of each waits.",
        parameters=paging(500),
        responses={"200": answer("A page of queues.", listed(_QUEUE, _EXAMPLE)), "400": error("A parameter is wrong.")},
    )


def _show() -> dict[str, Any]:
    return operation(
        "adminShowQueue",
        "Show a queue",
        "Its settings, and how much of it waits.",
        parameters=[_NAME],
        responses={"200": answer("The queue.", _SHOWN), "404": _MISSING},
    )


def _register() -> dict[str, Any]:
    named = {
        "name": TEXT | {"maxLength": 64, "pattern": "^[a-zA-Z0-9_-]+$"},
        "endpoint": TEXT,
        "served_by": {"enum": ["dispatcher", "workers"]},
    }
    example = {"name": "chat", "endpoint": "/v1/chat/completions", "concurrency": 8}
    return operation(
        "adminRegisterQueue",
        "Register a queue with its settings",
        "A queue registers itself with its first task; only by name it can begin with settings, such as a width.",
        requestBody=body(named | _SETTINGS, example, required=("name",)),
        responses={"201": answer("The queue.", _SHOWN)},
    )


def _change() -> dict[str, Any]:
    return operation(
        "adminChangeQueue",
        "Pause, resume or set a queue",
        "What is not named stays. While a queue is paused its tasks are accepted and stay queued, running calls "
        "finish, and nothing is handed out; it survives restarts. It goes on within two seconds after paused is false.",
        parameters=[_NAME],
        requestBody=body(_SETTINGS, {"paused": True}),
        responses={"200": answer("The queue as it is now.", _SHOWN), "404": _MISSING},
    )


def _purge() -> dict[str, Any]:
    counts = {
        "object": {"const": "purge"},
        "queue": TEXT,
        "purged": WHOLE | {"description": "Tasks that have been cancelled by it so far."},
        "left": WHOLE | {"description": "Tasks that were there and still wait."},
        "done": TRUTH,
    }
    schema = {"type": "object", "properties": counts}
    done = {"object": "purge", "queue": "chat", "purged": 1000, "left": 0, "done": True}
    return operation(
        "adminPurgeQueue",
        "Cancel everything that waits in a queue",
        "Every task that was accepted before and waits is cancelled, with a result and the reason purged; what a "
        "worker has already taken goes on.",
        parameters=[_NAME],
        requestBody=body({"level": LEVEL, "wait_s": WAIT}, {"level": "offline", "wait_s": 10}),
        responses={
            "200": answer("Done.", {"schema": schema, "example": done}),
            "202": answer(
                "It goes on after the wait was over.",
                {"schema": schema, "example": done | {"purged": 400, "left": 600, "done": False}},
            ),
            "404": _MISSING,
        },
    )
