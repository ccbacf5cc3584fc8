"""The admin routes of tasks, dead letters, workers and doctor as OpenAPI; those of queues stand beside."""

from __future__ import annotations

from typing import Any

from ingress.api.admin import queues_openapi
from ingress.api.admin.openapi_parts import (
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
    query,
)
from ingress.api.openapi_parts import TASK_TEXT, task_id_parameter
from schemas.records import STATES

_TASK = {"$ref": "#/components/schemas/AdminTask"}
_LETTER = {"$ref": "#/components/schemas/DeadLetter"}
_NULLABLE = {"type": ["string", "null"]}
_NUMBER = {"type": ["integer", "null"]}
_ONE = {
    "id": "task_6ceab82c6a0e2b4e0000000300000000",
    "object": "task",
    "status": "queued",
    "progress": 0,
    "queue": "chat",
    "level": 0,
    "endpoint": "/v1/chat/completions",
    "created_at": "2026-01-31T12:00:00Z",
    "task_id": TASK_TEXT,
    "owner": "default",
    "attempt": 1,
    "mode": "callback",
    "waits_for": "a worker that takes it",
}
_SHOWN = {"schema": _TASK, "example": _ONE}
_DEAD = {
    "object": "dead_letter",
    "id": "2-17",
    "reason": "level must be 0 or 1",
    "field": "level",
    "topic": "headrace.tasks.online",
    "partition": 3,
    "offset": 1041,
    "attempt": 0,
    "buried_at": "2026-01-31T12:00:00Z",
    "key": "k",
    "bytes": 215,
    "queue": None,
    "owner": None,
    "redriven_at": None,
}
_FOUND = {
    "weight": "problem",
    "code": "dispatcher_stopped",
    "subject": "dispatcher",
    "what": "no heartbeat from any dispatcher in the last 10 s; 12 tasks wait",
    "next_step": "start `headrace dispatcher`, or read its log",
}


def paths() -> dict[str, Any]:
    """Describe the routes."""
    return {
        **queues_openapi.paths(),
        "/v1/admin/tasks": {"get": _tasks()},
        "/v1/admin/tasks/{task_id}": {"get": _task()},
        "/v1/admin/tasks/{task_id}/cancel": {"post": _cancel()},
        "/v1/admin/tasks/{task_id}/requeue": {"post": _requeue()},
        "/v1/admin/dead-letters": {"get": _letters()},
        "/v1/admin/dead-letters/redrive": {"post": _redrive()},
        "/v1/admin/dead-letters/purge": {"post": _purge()},
        "/v1/admin/dead-letters/{letter_id}": {"get": _letter()},
        "/v1/admin/workers": {"get": _workers()},
        "/v1/admin/doctor": {"get": _doctor()},
    }


def schemas() -> dict[str, Any]:
    """Describe the bodies."""
    task = {
        "type": "object",
        "description": "The task object of GET /v1/tasks/{task_id}, with what only operators see.",
        "properties": {
            "id": TEXT,
            "task_id": TEXT | {"description": "The id as logs and topics have it."},
            "owner": _NULLABLE,
            "status": {"enum": [*STATES]},
            "queue": TEXT,
            "level": WHOLE,
            "endpoint": TEXT,
            "mode": TEXT,
            "attempt": WHOLE,
            "lost_workers": WHOLE,
            "worker": TEXT,
            "replay_of": TEXT,
            "waits_for": TEXT,
            "created_at": TIME,
        },
    }
    letter = {
        "type": "object",
        "properties": {
            "object": {"const": "dead_letter"},
            "id": TEXT,
            "reason": _NULLABLE,
            "field": _NULLABLE,
            "topic": _NULLABLE,
            "partition": _NUMBER,
            "offset": _NUMBER,
            "attempt": _NUMBER,
            "buried_at": TIME,
            "key": _NULLABLE,
            "bytes": _NUMBER,
            "queue": _NULLABLE,
            "owner": _NULLABLE,
            "redriven_at": _NULLABLE,
        },
    }
    return {"AdminTask": task, "DeadLetter": letter, **queues_openapi.schemas()}


def _tasks() -> dict[str, Any]:
    states = query("status", f"Only these states, of {', '.join(STATES)}; separated by commas.")
    parameters = [
        query("owner", "Only tasks of this tenant."),
        states,
        query("queue", "Only tasks of this queue."),
        query("level", "Only this level.", {"enum": ["online", "offline", "0", "1"]}),
        query("model", "Only tasks of this model."),
        query("created_after", "Only tasks created then or later."),
        query("created_before", "Only tasks created before then."),
        *paging(100),
    ]
    return operation(
        "adminListTasks",
        "List everybody's tasks",
        "Newest first. Tasks that belong to nobody are not listed.",
        parameters=parameters,
        responses={
            "200": answer("A page of tasks.", listed(_TASK, _ONE)),
            "400": error("A parameter is wrong."),
            "404": error("There is no such task to go on after."),
        },
    )


def _task() -> dict[str, Any]:
    return operation(
        "adminShowTask",
        "Show a task of anybody",
        "All that is known of it but its bodies.",
        parameters=[task_id_parameter()],
        responses={"200": answer("The task.", _SHOWN)},
    )


def _cancel() -> dict[str, Any]:
    return operation(
        "adminCancelTask",
        "Cancel a task of anybody",
        "As its owner would.",
        parameters=[task_id_parameter()],
        responses={"200": answer("The task.", _SHOWN), "400": error("It has ended already.")},
    )


def _requeue() -> dict[str, Any]:
    callback = TRUTH | {"description": "Send the callback that the first task asked for; without it none is sent."}
    return operation(
        "adminRequeueTask",
        "Run a task again that has ended",
        "A new task of the same owner with the same request; its replay_of names the first.",
        parameters=[task_id_parameter()],
        requestBody=body({"callback": callback, "wait_s": WAIT}, {"callback": False, "wait_s": 0}),
        responses={
            "202": answer("The new task.", {"schema": _TASK, "example": _ONE | {"replay_of": TASK_TEXT}}),
            "410": error("Its request is not kept any more."),
        },
    )


def _letters() -> dict[str, Any]:
    parameters = [
        query("reason", "Only letters whose reason holds this text."),
        query("topic", "Only letters from this topic."),
        query("redriven", "Only those that were, or were not, sent back.", {"enum": ["true", "false"]}),
        *paging(500),
    ]
    return operation(
        "adminListDeadLetters",
        "List the dead letters",
        "The newest first. A page looks at 5,000 letters of each partition at most: with a rare filter it may be empty "
        "and still have a next one.",
        parameters=parameters,
        responses={"200": answer("A page.", listed(_LETTER, _DEAD)), "400": error("A parameter is wrong.")},
    )


def _letter() -> dict[str, Any]:
    example = _DEAD | {"headers": {"x-field": "level"}, "value": "{}", "value_encoding": "text", "value_cut": False}
    return operation(
        "adminShowDeadLetter",
        "Show a dead letter",
        "With its headers and its value.",
        parameters=[path("letter_id", "PARTITION-OFFSET, as the list has it.")],
        responses={
            "200": answer("The letter.", {"schema": _LETTER, "example": example}),
            "404": error("There is no such letter."),
        },
    )


def _redrive() -> dict[str, Any]:
    properties = {
        "ids": {
            "type": "array",
            "items": TEXT,
            "minItems": 1,
            "description": "These letters, sent back before or not.",
        },
        "reason": TEXT | {"description": "All whose reason holds this text."},
        "topic": TEXT | {"description": "All from this topic."},
        "again": TRUTH | {"description": "Also those that were sent back before."},
        "limit": WHOLE | {"minimum": 1, "maximum": 10_000, "description": "Most letters; without it 1,000."},
        "dry_run": TRUTH | {"description": "Only say which."},
    }
    told = {
        "object": {"const": "redrive"},
        "dry_run": TRUTH,
        "redriven": WHOLE,
        "chosen": {"type": "array", "items": TEXT},
        "skipped": {"type": "object", "additionalProperties": TEXT, "description": "Letter → why it was not sent."},
    }
    example = {"object": "redrive", "dry_run": False, "redriven": 1, "chosen": ["2-17"], "skipped": {}}
    return operation(
        "adminRedrive",
        "Send dead letters back",
        "The original record goes to its original topic and partition once more; a letter is sent back once unless "
        "again is set or its id is named.",
        requestBody=body(properties, {"topic": "tasks.online", "dry_run": False}),
        responses={"200": answer("What was sent.", _thing(told, example))},
    )


def _purge() -> dict[str, Any]:
    properties = {
        "all": TRUTH | {"description": "Everything up to now."},
        "before": TIME | {"description": "Everything that was buried before this time."},
        "partition": WHOLE | {"minimum": 0, "maximum": 3},
        "offset": WHOLE | {"minimum": 0, "description": "The first letter of the partition to keep."},
    }
    told = {"type": "object", "properties": {"object": {"const": "purge"}, "deleted": WHOLE}}
    return operation(
        "adminPurgeDeadLetters",
        "Delete dead letters",
        "For good: Kafka deletes everything before an offset.",
        requestBody=body(properties, {"before": "2026-01-31T12:00:00Z"}),
        responses={"200": answer("Deleted.", {"schema": told, "example": {"object": "purge", "deleted": 12}})},
    )


def _workers() -> dict[str, Any]:
    example = {
        "object": "workers",
        "schedulers": [
            {"name": "host-online-0", "level": "online", "partitions": [0, 1], "last_heard_at": "2026-01-31T12:00:00Z"}
        ],
        "dispatchers": [
            {
                "name": "host-77-a1b2c3",
                "running": 4,
                "upstreams_up": 1,
                "last_heartbeat_at": "2026-01-31T12:00:00Z",
                "partitions": 8,
                "queues": {"chat": 8},
            }
        ],
        "other_consumers": [],
        "pull_workers": [],
    }
    many = {"type": "array", "items": {"type": "object"}}
    properties = {"object": {"const": "workers"}} | dict.fromkeys(
        ("schedulers", "dispatchers", "other_consumers", "pull_workers"), many
    )
    return operation(
        "adminListWorkers",
        "List who works",
        "Schedulers and dispatchers heard within 10 s, others that read work topics, and what pull workers hold.",
        responses={"200": answer("All.", _thing(properties, example))},
    )


def _doctor() -> dict[str, Any]:
    finding = {
        "type": "object",
        "properties": {
            "weight": {"enum": ["problem", "note"]},
            "code": TEXT,
            "subject": TEXT,
            "what": TEXT,
            "next_step": TEXT,
        },
    }
    properties = {
        "object": {"const": "doctor"},
        "healthy": TRUTH | {"description": "Whether there is no problem; notes do not count."},
        "watched_s": {"type": "number"},
        "data": {"type": "array", "items": finding},
    }
    example = {"object": "doctor", "healthy": False, "watched_s": 10.0, "data": [_FOUND]}
    return operation(
        "adminDoctor",
        "Say what is stuck and why",
        "Listens for 3 to 10 s. Each finding has a next step.",
        responses={"200": answer("Findings.", _thing(properties, example))},
    )


def _thing(properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "properties": properties}, "example": example}
