"""Parameters, bodies and answers of the administration API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi import Depends
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response

from core.errors import InvalidRequest
from ingress.api.examples import TASK_TEXT
from ingress.api.tasks.models import AsyncTask, TaskListQuery
from ingress.http.routing import left_out
from ingress.http.validation import Digits, JsonBody, JsonObject, Parameters, QueryParameters

MAX_BODY = 65_536
MAX_CONCURRENCY = 100_000
MAX_RETENTION_S = 604_800
MAX_WAITING = 1_000_000_000
MAX_WAIT_S = 60
MAX_REDRIVE = 10_000
MAX_OFFSET = (1 << 63) - 1
LEVELS: dict[object, int] = {"0": 0, "1": 1, "online": 0, "offline": 1, 0: 0, 1: 1}


def level_of(value: object) -> int:
    """Read a level by number or name; raises InvalidRequest."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in LEVELS:
        raise InvalidRequest("level must be 0 (online) or 1 (offline)", field="level")
    return LEVELS[value]


Text = Annotated[str, Field(min_length=1, max_length=256)]
Level = Annotated[int, BeforeValidator(level_of), WithJsonSchema({"enum": ["online", "offline", 0, 1]})]
WaitS = Annotated[int, Field(ge=0, le=MAX_WAIT_S)]
AFTER = "The `next_cursor` of the page before."
LIMIT = "Entries per page at most."
WAIT = "Seconds to wait for the end."


class QueuesQuery(Parameters):
    """Which page of the queues is wanted."""

    after: str = Field("", description=AFTER)
    limit: Annotated[int, Field(ge=1, le=500, description=LIMIT), Digits] = 100


class DeadLettersQuery(Parameters):
    """Which dead letters are wanted."""

    after: str | None = Field(None, description=AFTER)
    limit: Annotated[int, Field(ge=1, le=500, description=LIMIT), Digits] = 50
    reason: str | None = Field(None, description="Only dead letters whose reason contains this text.")
    redriven: Literal["true", "false"] | None = Field(None, description="Only redriven ones, or only the others.")
    topic: str | None = Field(None, description="Only dead letters from this topic.")


class AdminTasksQuery(TaskListQuery):
    """Which tasks of all tenants are wanted."""

    owner: str | None = Field(None, description="Only tasks of this tenant.")


class QueueIdentity(JsonObject):
    """The name of a queue, and who serves it."""

    name: Annotated[Text, Field(json_schema_extra={"maxLength": 64, "pattern": "^[a-zA-Z0-9_-]+$"})]
    endpoint: Text | None = Field(None, description="Path of the upstream API, such as /v1/chat/completions.")
    served_by: Literal["dispatcher", "workers"] | None = Field(
        None, description="`dispatcher` (default), or `workers` that fetch tasks over HTTP."
    )


class QueueSettingsBody(JsonObject):
    """Settings of a queue; members that are left out do not change."""

    paused: bool | None = Field(None, description="While this is set no task of the queue is started.")
    width: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Partitions over which its tasks are spread; 0 for all. It can only grow."
    )
    concurrency: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY)] | None = Field(
        None, description="Calls at once per dispatcher at most; 0 for no limit."
    )
    result_retention_s: Annotated[int, Field(ge=0, le=MAX_RETENTION_S)] | None = Field(
        None, description="Result retention of tasks that name none; 0 for the general setting."
    )
    max_waiting: Annotated[int, Field(ge=0, le=MAX_WAITING)] | None = Field(
        None, description="Tasks of a level that may wait; more are refused with 429. 0 for any number."
    )


class QueueRegistration(QueueSettingsBody, QueueIdentity):
    """A queue that is registered by name, with its first settings."""


class QueuePurge(JsonObject):
    """Which tasks of a queue are cancelled."""

    level: Level | None = Field(None, description="Without it both levels.")
    wait_s: WaitS | None = Field(None, description=WAIT)


class TaskRequeue(JsonObject):
    """How a task is run again."""

    callback: bool | None = Field(
        None, description="Send the callback that the first task asked for; without it none is sent."
    )
    wait_s: WaitS | None = Field(None, description=WAIT)


class DeadLetterRedrive(JsonObject):
    """Which dead letters are redriven: by id, or by reason and topic."""

    again: bool | None = Field(None, description="Also those that were redriven before.")
    dry_run: bool | None = Field(None, description="Only return which ones would be redriven.")
    ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=MAX_REDRIVE)] | None = (
        Field(None, description="These dead letters, redriven before or not.")
    )
    limit: Annotated[int, Field(ge=1, le=MAX_REDRIVE)] | None = Field(
        None, description="Dead letters at most; without it 1,000."
    )
    reason: Text | None = Field(None, description="Those whose reason contains this text.")
    topic: Text | None = Field(None, description="Those from this topic.")


class DeadLetterPurge(JsonObject):
    """Which dead letters are deleted: all, those before a time, or those of a partition before an offset."""

    everything: bool | None = Field(None, alias="all", description="Everything up to now.")
    before: Annotated[str, Field(min_length=1, max_length=64, json_schema_extra={"format": "date-time"})] | None = (
        Field(None, description="Everything that was dead-lettered before this time.")
    )
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] | None = Field(
        None, description="The first dead letter of the partition that is not deleted."
    )
    partition: Annotated[int, Field(ge=0, le=3)] | None = Field(None, description="Partition of the offset.")


EXAMPLE_REGISTRATION = {"name": "chat", "endpoint": "/v1/chat/completions", "concurrency": 8}
QueuesParameters = Annotated[QueuesQuery, Depends(QueryParameters(QueuesQuery))]
DeadLettersParameters = Annotated[DeadLettersQuery, Depends(QueryParameters(DeadLettersQuery))]
AdminTasksParameters = Annotated[AdminTasksQuery, Depends(QueryParameters(AdminTasksQuery))]
RegistrationBody = Annotated[
    QueueRegistration, Depends(JsonBody(QueueRegistration, limit=MAX_BODY, example=EXAMPLE_REGISTRATION))
]
SettingsBody = Annotated[
    QueueSettingsBody, Depends(JsonBody(QueueSettingsBody, limit=MAX_BODY, example={"paused": True}))
]
QueuePurgeBody = Annotated[
    QueuePurge, Depends(JsonBody(QueuePurge, limit=MAX_BODY, example={"level": "offline", "wait_s": 10}))
]
RequeueBody = Annotated[
    TaskRequeue, Depends(JsonBody(TaskRequeue, limit=MAX_BODY, example={"callback": False, "wait_s": 0}))
]
RedriveBody = Annotated[
    DeadLetterRedrive,
    Depends(JsonBody(DeadLetterRedrive, limit=4 * MAX_BODY, example={"topic": "tasks.online", "dry_run": False})),
]
DeadLetterPurgeBody = Annotated[
    DeadLetterPurge, Depends(JsonBody(DeadLetterPurge, limit=MAX_BODY, example={"before": "2026-01-31T12:00:00Z"}))
]


class Listed(BaseModel):
    """A page of a list."""

    object: Literal["list"]
    has_more: bool
    next_cursor: str | None = Field(description="To be sent as `after` for the next page; null at the end.")


class QueueCounts(BaseModel):
    """Tasks by level."""

    online: int
    offline: int


class AdminQueue(BaseModel):
    """A queue with its settings."""

    object: Literal["queue"]
    name: str
    number: int = Field(description="The number in the ids of its tasks.")
    endpoint: str | None
    owner: str | None = Field(description="The tenant that registered it.")
    created_at: AwareDatetime
    registered_by: Literal["name", "first task"]
    served_by: Literal["dispatcher", "workers"]
    paused: bool
    width: int
    concurrency: int | None
    result_retention_s: int | None
    max_waiting: int | None = Field(description="The limit in force, from the queue or the settings; null for none.")
    waiting: QueueCounts | None = Field(
        description="Tasks that no dispatcher or worker has taken yet; null if that is not known."
    )


class AdminQueueList(Listed):
    """A page of queues."""

    data: list[AdminQueue]


class QueuePurgeReport(BaseModel):
    """What a purge of a queue has done."""

    object: Literal["purge"]
    queue: str
    purged: int = Field(description="Tasks that it has cancelled so far.")
    left: int = Field(description="Tasks that were there and still wait.")
    done: bool


class AdminTask(AsyncTask):
    """The task object of `GET /v1/tasks/{task_id}`, with members that only operators see."""

    task_id: str = Field(description="The id as logs and topics have it.")
    owner: str | None = Field(description="The tenant.")
    mode: str = left_out("callback, blocking, streaming or batch.")
    attempt: int = left_out("The current attempt, from 1.")
    lost_workers: int = left_out("Workers that were lost while they ran it.")
    worker: str = left_out("The worker that runs it, or ran it last.")
    callback_url: str = left_out("Where its outcome is posted.")
    duplicate_of: str = left_out("The task that it is a duplicate of.")
    replay_of: str = left_out("The task that was run again as this one.")
    batch_id: str = left_out("Its batch.")
    batch_line: int = left_out("Its line in the batch, from 0.")
    not_before_at: AwareDatetime = left_out("When its next attempt may start.")
    start_deadline_at: AwareDatetime = left_out("Time by which a worker must have started it.")
    lease_until_at: AwareDatetime = left_out("Until when a pull worker holds it.")
    waits_for: str = left_out("Why a queued task does not run yet.")


class AdminTaskList(Listed):
    """A page of tasks."""

    data: list[AdminTask]


class DeadLetterObject(BaseModel):
    """A record that could not be processed."""

    object: Literal["dead_letter"]
    id: str
    reason: str | None
    field: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    attempt: int | None
    buried_at: AwareDatetime = Field(description="When it was dead-lettered.")
    key: str | None
    bytes: int | None
    queue: str | None
    owner: str | None
    redriven_at: AwareDatetime | None


class DeadLetterDetails(DeadLetterObject):
    """A dead letter with its headers and its value."""

    headers: dict[str, str]
    value: str | None
    value_encoding: Literal["text", "base64"] = left_out()
    value_cut: bool = left_out("Whether this is only the beginning of the value.")


class DeadLetterList(Listed):
    """A page of dead letters."""

    data: list[DeadLetterObject]


class RedriveReport(BaseModel):
    """What a redrive has done."""

    object: Literal["redrive"]
    dry_run: bool
    redriven: int
    chosen: list[str]
    skipped: dict[str, str] = Field(description="Dead letter → why it was not redriven.")


class DeadLetterPurgeReport(BaseModel):
    """How many dead letters were deleted."""

    object: Literal["purge"]
    deleted: int


class SchedulerStatus(BaseModel):
    """A scheduler that has sent a heartbeat."""

    name: str
    level: Literal["online", "offline"]
    partitions: list[int]
    last_heard_at: AwareDatetime = Field(description="Time of its last heartbeat.")


class DispatcherStatus(BaseModel):
    """A dispatcher that has sent a heartbeat."""

    name: str
    running: int
    upstreams_up: int
    last_heartbeat_at: AwareDatetime
    partitions: int
    queues: dict[str, int] = Field(description="Queue → partitions of it that this dispatcher reads.")


class ConsumerStatus(BaseModel):
    """Another consumer of work topics."""

    name: str
    queues: dict[str, int]


class PullWorkerStatus(BaseModel):
    """The tasks that workers hold which fetch them over HTTP."""

    name: str
    queue: str
    level: Literal["online", "offline"]
    running: int
    next_lease_ends_at: AwareDatetime | None


class WorkerList(BaseModel):
    """Schedulers, dispatchers and workers."""

    object: Literal["workers"]
    schedulers: list[SchedulerStatus]
    dispatchers: list[DispatcherStatus]
    other_consumers: list[ConsumerStatus]
    pull_workers: list[PullWorkerStatus]


class DoctorFinding(BaseModel):
    """Something that is wrong or worth knowing."""

    weight: Literal["problem", "note"]
    code: str
    subject: str
    what: str
    next_step: str


class DoctorReport(BaseModel):
    """What the doctor has found."""

    object: Literal["doctor"]
    healthy: bool = Field(description="Whether there is no problem; notes do not count.")
    watched_s: float
    data: list[DoctorFinding]


QUEUE = {
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
PURGED = {"object": "purge", "queue": "chat", "purged": 1000, "left": 0, "done": True}
TASK = {
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
DEAD_LETTER = {
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
WORKERS = {
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
FINDING = {
    "weight": "problem",
    "code": "dispatcher_stopped",
    "subject": "dispatcher",
    "what": "no heartbeat from any dispatcher in the last 10 s; 12 tasks wait",
    "next_step": "start `headrace dispatcher`, or read its log",
}


def page_of(example: dict[str, Any]) -> dict[str, Any]:
    """Return the example of a page with one entry."""
    return {"object": "list", "data": [example], "has_more": False, "next_cursor": None}


def answer_json(body: dict[str, Any], status: int = 200) -> Response:
    """Render an answer."""
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)
