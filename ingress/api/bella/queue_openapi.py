"""The routes of workers and of the queues they serve, as OpenAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingress.api.openapi_parts import CHAT, COMPLETION, TASK_TEXT, task_id_parameter
from ingress.pull.strategies import STRATEGIES

TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
LANE = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}:[01]$"}
JSON = "application/json"
Errors = Callable[..., dict[str, Any]]

TASK = {
    "task_id": TASK_TEXT,
    "ak": "",
    "endpoint": "/v1/chat/completions",
    "queue": "chat",
    "level": 0,
    "data": CHAT,
    "status": "queued",
    "instance_id": "0003",
    "start_time": 1_769_860_800_000,
    "expire_time": 1_769_947_200_000,
    "response_mode": "callback",
    "attempt": 1,
}
HEAD_ROW = {
    "queue": "chat",
    "level": 0,
    "last_wrote_sharding_key": "0003",
    "last_wrote_id": TASK_TEXT,
    "last_scanned_sharding_key": "0003",
    "last_scanned_id": TASK_TEXT,
    "total_put_cnt": 12,
    "total_loaded_cnt": 9,
    "total_completed_cnt": 8,
}


def paths(errors: Errors) -> dict[str, Any]:
    """Describe every route; `errors` describes the answers of this dialect for statuses."""
    return {
        "/v1/queue/register": {"post": _register(errors)},
        "/v1/queue/take": {"post": _take(errors)},
        "/v1/queue/eventbus": {"get": _event_bus(errors)},
        "/v1/queue/{task_id}/complete": {"post": _complete(errors)},
        "/v1/queue/{queue}/metadata": {"get": _metadata(errors)},
        "/v1/queue/{queue_level}/stats": {"get": _stats(errors)},
    }


def _register(errors: Errors) -> dict[str, Any]:
    properties = {
        "queue": TEXT | {"pattern": "^[a-zA-Z0-9_-]{1,64}$"},
        "endpoint": TEXT | {"description": "Path of the API that its tasks are for; shown by metadata, not enforced."},
        "served_by": {
            "enum": ["workers", "dispatcher"],
            "default": "workers",
            "description": "workers take its tasks over HTTP; the dispatcher calls the model servers itself.",
        },
    }
    return {
        "operationId": "register",
        "summary": "Register a queue",
        "description": (
            "Names are unique over all keys. A name that is taken is a 400, by a first task too. The default queue and "
            "those of the settings are for keys with the scope admin; others are answered 403."
        ),
        "requestBody": _body(properties, ["queue", "endpoint"], {"queue": "chat", "endpoint": "/v1/chat/completions"}),
        "responses": {
            "200": _answer("The queue's name, as a JSON string.", TEXT, "chat"),
            **errors(400, 401, 503),
        },
    }


def _take(errors: Errors) -> dict[str, Any]:
    properties = {
        "queues": {"type": "array", "minItems": 1, "items": LANE, "description": "NAME:LEVEL, in order of preference."},
        "size": {"type": "integer", "minimum": 1, "default": 1, "description": "At most 10 with fifo, 100 else."},
        "strategy": {"enum": list(STRATEGIES), "default": "fifo"},
        "process_timeout": COUNT | {"description": "Seconds until a task that was not completed is handed out again."},
        "process_max_retries": {
            "type": "integer",
            "minimum": -1,
            "description": "How often; -1 no limit.",
        },
        "min_age_seconds": COUNT | {"description": "Only tasks that are older."},
    }
    schema = {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "object"}},
    }
    return {
        "operationId": "take",
        "summary": "Take tasks as a worker",
        "description": (
            "For the key that registered the queue, or one with the scope admin: it is given the tasks of all "
            "producers. A task is held for `process_timeout`, else for its own run_timeout, else until its deadline, "
            "and by one worker only. A queue that the dispatcher served until now is the workers' from the first take. "
            "fifo takes the oldest of all queues, round_robin one of each in turn, active_passive all of the first "
            "before the next, sequential one of each queue, and none while another of its tasks is held anywhere."
        ),
        "requestBody": _body(properties, ["queues"], {"queues": ["chat:0", "chat:1"], "size": 5}),
        "responses": {
            "200": _answer("Tasks by NAME:LEVEL; empty where nothing waits.", schema, {"chat:0": [TASK]}),
            **errors(400, 401, 404, 503),
        },
    }


def _complete(errors: Errors) -> dict[str, Any]:
    properties = {
        "status_code": {"type": "integer", "minimum": 200, "maximum": 599, "default": 200},
        "request_id": TEXT | {"description": "The task's id in any form, where it is given."},
        "body": {"description": "The answer, not null. A text is passed on as it is, anything else as JSON."},
        "result_encoding": {"const": "base64", "description": "When the body holds bytes in base64."},
        "result_content_type": TEXT | {"description": "Media type of these bytes, such as audio/mpeg."},
        "attempt": {
            "type": "integer",
            "minimum": 1,
            "description": "As take told it; else the one that is held.",
        },
    }
    return {
        "operationId": "completeTask",
        "summary": "Bring the outcome of a task",
        "description": (
            "The outcome goes to whoever waits, to the callback and to the results. One that comes after the lease is "
            "dropped, and the answer is the same."
        ),
        "parameters": [task_id_parameter()],
        "requestBody": _body(properties, ["body"], {"status_code": 200, "request_id": TASK_TEXT, "body": COMPLETION}),
        "responses": {
            "200": _answer("The id, as a JSON string.", TEXT, TASK_TEXT),
            **errors(400, 401, 404, 413, 503),
        },
    }


def _metadata(errors: Errors) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"queue": TEXT, "endpoint": TEXT, "served_by": TEXT}}
    example = {"queue": "chat", "endpoint": "/v1/chat/completions", "served_by": "workers"}
    return {
        "operationId": "metadata",
        "summary": "Show a queue's endpoint",
        "parameters": [_path("queue", "Name of the queue.", TEXT)],
        "responses": {"200": _answer("The queue; empty when there is none.", schema, example), **errors(401)},
    }


def _stats(errors: Errors) -> dict[str, Any]:
    counts = {name: COUNT if name.endswith("cnt") else TEXT for name in HEAD_ROW} | {"level": {"enum": [0, 1]}}
    return {
        "operationId": "stats",
        "summary": "Show the counts of a queue and level",
        "description": (
            "put: all tasks that are known, for at least 8 days after their end; loaded: those that were handed out; "
            "completed: those that have ended, well or not. For the queue's owner and the scope admin."
        ),
        "parameters": [_path("queue_level", "NAME:LEVEL", LANE)],
        "responses": {
            "200": _answer("Bella's head row.", {"type": "object", "properties": counts}, HEAD_ROW),
            **errors(400, 401, 404, 503),
        },
    }


def _event_bus(errors: Errors) -> dict[str, Any]:
    return {
        "operationId": "eventbus",
        "summary": "There is no event bus",
        "description": "Always a 404: complete carries the outcome, and every event is in the topics.",
        "responses": errors(401, 404),
    }


def _body(properties: dict[str, Any], required: list[str], example: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": True}
    return {"required": True, "content": {JSON: {"schema": schema, "example": example}}}


def _answer(description: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema, "example": example}}}


def _path(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
