"""The queue API for workers that fetch tasks over HTTP: register, metadata, take, complete, stats."""

from __future__ import annotations

import logging
import secrets

from starlette.requests import Request
from starlette.responses import Response

from core.clock import epoch_ms
from core.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from core.settings.models import Settings
from core.usage import usage_of
from ingress.api.bella import models, pull_serialization
from ingress.api.examples import TASK_TEXT
from ingress.auth.keys import Caller
from ingress.connected import Connected
from ingress.http.dependencies import AppConnected, AppIngress, ReadCaller, SubmitCaller, TaskIdPath
from ingress.http.routing import JSON, answer, api_router, error
from ingress.pull.claims import WORKER_ERROR, reported
from ingress.pull.strategies import TakeRequest
from ingress.runtime import Ingress
from schemas import ids
from schemas.records import Queue, Status

log = logging.getLogger(__name__)

COUNTED_S = 10.0
NO_EVENT_BUS = (
    "there is no event bus to connect to; complete carries the outcome, and readers of Kafka find every event in the "
    "topics"
)
router = api_router("Queue API")
_WRONG = error("A member of the body is missing or wrong.")


@router.post(
    "/v1/queue/register",
    operation_id="register",
    summary="Register a queue",
    responses={
        200: answer("The name of the queue, as a JSON string.", str, example="chat"),
        400: error("A member of the body is missing or wrong, or the name is taken."),
    },
)
async def register(
    caller: SubmitCaller, body: models.RegisterBody, ingress: AppIngress, connected: AppConnected
) -> Response:
    """Names are unique over all tenants; a name that is taken, by a first task too, is a 400.

    The default queue and those of the settings are for keys with the scope admin; other keys get a 403.
    """
    wanted = pull_serialization.parse_register(body)
    if not _is_admin(caller):
        _check_not_shared(ingress.settings, wanted.queue)
    queue = connected.queues.get(wanted.queue)
    if queue is None:
        queue = await connected.queues.register(
            connected.producer,
            wanted.queue,
            endpoint=wanted.endpoint,
            owner=caller.owner,
            explicit=True,
            served_by=wanted.served_by,
        )
        if queue["explicit"] and queue["owner"] == caller.owner:
            ingress.metrics.answers.labels("register", "", "200").inc()
            return Response(b'"%b"' % wanted.queue.encode(), media_type=JSON)
    raise InvalidRequest(f"queue {wanted.queue} is registered already", field="queue")


@router.post(
    "/v1/queue/take",
    operation_id="take",
    summary="Take tasks as a worker",
    responses={
        200: answer(
            "Tasks by NAME:LEVEL; empty where nothing waits.",
            dict[str, list[models.TakenTask]],
            example={"video:0": [models.TAKEN]},
        ),
        400: _WRONG,
        **models.NO_QUEUE,
    },
)
async def take(
    caller: SubmitCaller, body: models.TakeRequestBody, request: Request, ingress: AppIngress, connected: AppConnected
) -> Response:
    """For the key that registered the queue, or one with the scope admin: it gets the tasks of all producers.

    A task is leased to one worker for `process_timeout`, else for its own run_timeout, else until its deadline. A
    queue that the dispatcher served until now belongs to the workers from the first take.

    Strategies: fifo takes the oldest of all queues, round_robin one of each in turn, active_passive all of the first
    before the next, sequential one of each queue, and none while another of its tasks is leased anywhere.
    """
    wanted = pull_serialization.parse_take(body)
    await _open(connected, wanted, caller)
    taken = await connected.pull.take(_without_paused(connected, wanted))
    if await request.is_disconnected():
        await connected.pull.claims.release([one.row for tasks in taken.values() for one in tasks])
        taken = {}
    ingress.metrics.answers.labels("take", wanted.strategy, "200").inc()
    return Response(pull_serialization.taken_map(taken), media_type=JSON)


@router.get(
    "/v1/queue/eventbus",
    operation_id="eventbus",
    summary="There is no event bus",
    status_code=404,
    responses={404: error("Always: complete carries the outcome, and every event is in the topics.")},
)
async def event_bus(_: ReadCaller) -> Response:
    """Always a 404: Bella returns the address and password of its Redis here."""
    raise NotFound(NO_EVENT_BUS)


@router.post(
    "/v1/queue/{task_id}/complete",
    operation_id="completeTask",
    summary="Report the outcome of a task",
    responses={
        200: answer("The id, as a JSON string.", str, example=TASK_TEXT),
        400: _WRONG,
    },
)
async def complete(
    caller: SubmitCaller,
    task_id: TaskIdPath,
    body: models.CompletionBody,
    ingress: AppIngress,
    connected: AppConnected,
) -> Response:
    """The outcome goes to waiting clients, to the callback and to the results.

    One that arrives after the lease is dropped, and the answer is the same.
    """
    given = pull_serialization.parse_complete(body)
    row = await _row(ingress, connected, task_id, caller)
    pull_serialization.check_is_for(given, ids.parse(row["id"]))
    if not await _finish(ingress, connected, row, given):
        log.info(
            "dropped an outcome of %s that arrived too late",
            row["id"],
            extra={"event": "late_completion_ignored", "task_id": row["id"]},
        )
    ingress.metrics.answers.labels("complete", row["mode"], "200").inc()
    return Response(b'"%b"' % row["id"].encode(), media_type=JSON, headers={"x-task-id": row["id"]})


@router.get(
    "/v1/queue/{queue}/metadata",
    operation_id="metadata",
    summary="Show the endpoint of a queue",
    responses={200: answer("The queue; empty when there is none.", models.QueueMetadata, example=models.METADATA)},
)
async def metadata(_: ReadCaller, name: models.QueuePath, connected: AppConnected) -> Response:
    """The answer is empty for an unknown queue, as Bella's is."""
    queue = connected.queues.get(name)
    if queue is None:
        return Response(b"")  # without a media type: an empty text is no JSON
    return Response(pull_serialization.described(queue), media_type=JSON)


@router.get(
    "/v1/queue/{queue_level}/stats",
    operation_id="stats",
    summary="Show the counters of a queue and level",
    responses={
        200: answer("Bella's head row.", models.QueueCounters, example=models.COUNTERS),
        400: error("The path has no NAME:LEVEL."),
        **models.NO_QUEUE,
    },
)
async def stats(caller: ReadCaller, queue_level: models.QueueLevelPath, connected: AppConnected) -> Response:
    """For the owner of the queue and the scope admin.

    put: all known tasks, for at least 8 days after their end; loaded: those that were taken; completed: those that
    have ended, successfully or not.
    """
    name = pull_serialization.parse_queue_level(queue_level, field="queue:level")
    queue = connected.queues.get(name.queue)
    if queue is None or not (_is_admin(caller) or queue["owner"] == caller.owner):
        raise _no_queue(name.queue)
    watched = connected.pull.watch(name)
    if not await watched.counted(COUNTED_S):
        raise Unavailable(f"the tasks of {name} are still being counted; try again in some seconds")
    return Response(pull_serialization.head_row(name, watched.queue), media_type=JSON)


def _check_not_shared(settings: Settings, name: str) -> None:
    """Refuse names that tenants share: the workers of one would get the tasks of all."""
    if name == settings.ingress.default_queue:
        raise Forbidden(f"queue {name} is the default queue; this needs a key with the scope admin")
    if name in settings.queues:
        raise Forbidden(f"queue {name} is defined in the settings; this needs a key with the scope admin")


async def _open(connected: Connected, wanted: TakeRequest, caller: Caller) -> None:
    """Check that a caller may take from the queues, and convert those of the dispatcher; raises NotFound."""
    queues = {
        name: _served_queue(connected, name, caller) for name in dict.fromkeys(one.queue for one in wanted.queues)
    }
    for name, queue in queues.items():
        if queue["served_by"] != "workers":
            await connected.queues.convert_to_pull_queue(connected.producer, queue)
            log.info(
                "queue %s is served by workers now", name, extra={"event": "queue_converted_to_pull", "queue": name}
            )


def _without_paused(connected: Connected, wanted: TakeRequest) -> TakeRequest:
    """Leave out paused queues: none of their tasks is taken, and those that workers have taken continue."""
    queues = {one.queue: connected.queues.get(one.queue) for one in wanted.queues}
    paused = {name for name, queue in queues.items() if queue is not None and queue["paused"]}
    if not paused:
        return wanted
    return wanted._replace(queues=tuple(one for one in wanted.queues if one.queue not in paused))


def _served_queue(connected: Connected, name: str, caller: Caller) -> Queue:
    queue = connected.queues.get(name)
    if queue is not None and (_is_admin(caller) or (queue["explicit"] and queue["owner"] == caller.owner)):
        return queue
    raise _no_queue(name)


async def _row(ingress: Ingress, connected: Connected, text: str, caller: Caller) -> Status:
    """Return the row of a task that the caller's workers may complete; raises NotFound."""
    unknown = NotFound(f"there is no task {text[:80]}")
    try:
        task_id = ids.parse(text)
    except ids.IdError:
        raise unknown from None
    if task_id.partition >= ingress.settings.kafka.partitions:
        raise unknown
    # Another ingress may have handed the task out: only a view that is up to date knows the leased attempt.
    await connected.pull.claims.read_all(task_id.level, [task_id.partition])
    row = connected.view.get(str(task_id).encode())
    if row is None or row["duplicate_of"] is not None or row["source_offset"] < 0:
        raise unknown
    try:
        _served_queue(connected, row["queue"], caller)
    except NotFound:
        raise unknown from None
    return row


async def _finish(ingress: Ingress, connected: Connected, row: Status, given: pull_serialization.Completion) -> bool:
    """Report an outcome to the scheduler; False when the task is leased to another worker, or has ended already."""
    if row["lease_until_ms"] is None or given.attempt not in (None, row["attempt"]):
        return False
    body: bytes | None = given.body
    body_ref = None
    if len(given.body) > ingress.settings.storage.inline_bytes:
        name = f"results/{row['id']}-{row['attempt']}-{secrets.token_hex(4)}"
        body_ref = await ingress.blobs.put(given.body, name=name, media_type=given.content_type)
        body = None
    outcome = reported(
        given.status_code,
        body=body,
        body_ref=body_ref,
        content_type=given.content_type,
        usage=usage_of(given.body),
        started_ms=row["started_ms"] or epoch_ms(),
    )
    decided = await connected.pull.claims.finish(row, outcome)
    # Without a decision in time the outcome is not dropped: it is in the log, and the scheduler will decide.
    return decided is None or (decided["attempt"] == row["attempt"] and decided["error_code"] in (None, WORKER_ERROR))


def _is_admin(caller: Caller) -> bool:
    return "admin" in caller.scopes


def _no_queue(name: str) -> NotFound:
    return NotFound(f"there is no queue {name} that this key may take from")
