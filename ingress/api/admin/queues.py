"""Queues for administrators: list, register, settings and pauses, purge."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from starlette.responses import Response

from core import drain_rate
from core.errors import InvalidRequest, NotFound, RateLimited
from core.kafka.cluster import Lag
from core.queues import QueueChanges
from ingress.api.admin import models
from ingress.api.admin.models import answer_json
from ingress.api.admin.purge import purge
from ingress.api.tasks.serialization import moment
from ingress.connected import Connected
from ingress.http.dependencies import AdminCaller, AppConnected, AppIngress
from ingress.http.routing import answer, api_router, error
from ingress.runtime import Ingress
from schemas import topics
from schemas.records import Queue
from schemas.validation import Invalid, check_endpoint, check_queue

PURGE_WAIT_S = 10
router = api_router("Administration")
QueueName = Annotated[str, Path(alias="queue", description="The name of the queue.")]
_MISSING = error("There is no such queue.")


@router.get(
    "/v1/admin/queues",
    operation_id="adminListQueues",
    summary="List the queues",
    responses={
        200: answer("A page of queues.", models.AdminQueueList, example=models.page_of(models.QUEUE)),
        400: error("A parameter is wrong."),
    },
)
async def list_queues(
    _: AdminCaller, query: models.QueuesParameters, ingress: AppIngress, connected: AppConnected
) -> Response:
    """By name, with the number of waiting tasks of each."""
    following = [one for one in connected.queues.all() if one["name"] > query.after]
    page = following[: query.limit]
    waiting = await _waiting(ingress, page)
    data = [_object(ingress, connected, one, waiting.get(one["name"])) for one in page]
    more = page[-1]["name"] if len(following) > query.limit else None
    return answer_json({"object": "list", "data": data, "has_more": more is not None, "next_cursor": more})


@router.post(
    "/v1/admin/queues",
    operation_id="adminRegisterQueue",
    summary="Register a queue with its settings",
    responses={201: answer("The queue.", models.AdminQueue, example=models.QUEUE)},
)
async def register_queue(
    caller: AdminCaller, wanted: models.RegistrationBody, ingress: AppIngress, connected: AppConnected
) -> Response:
    """A queue registers itself with its first task; only by name it can begin with settings, such as a width."""
    name, endpoint = wanted.name, wanted.endpoint
    try:
        check_queue(name)
        if endpoint is not None:
            check_endpoint(endpoint)
    except Invalid as wrong:
        raise InvalidRequest(wrong.message, field="name" if wrong.field == "queue" else wrong.field) from None
    changes = _changes(ingress, wanted)
    taken = InvalidRequest(f"queue {name} is registered already; its settings can be changed", field="name")
    if connected.queues.get(name) is not None:
        raise taken
    try:
        queue = await connected.queues.register(
            connected.producer,
            name,
            endpoint=endpoint,
            owner=caller.owner,
            explicit=True,
            served_by=wanted.served_by or "dispatcher",
            changes=changes,
        )
    except RateLimited as refused:  # it would be refused again later, so this is no 429
        raise InvalidRequest(refused.message, field="name") from None
    if not queue["explicit"] or queue["owner"] != caller.owner:
        raise taken
    return answer_json(_object(ingress, connected, queue, None), status=201)


@router.get(
    "/v1/admin/queues/{queue}",
    operation_id="adminShowQueue",
    summary="Show a queue",
    responses={200: answer("The queue.", models.AdminQueue, example=models.QUEUE), 404: _MISSING},
)
async def show_queue(_: AdminCaller, name: QueueName, ingress: AppIngress, connected: AppConnected) -> Response:
    """Its settings, and the number of its waiting tasks."""
    return await _shown(ingress, connected, _find(connected, name))


@router.patch(
    "/v1/admin/queues/{queue}",
    operation_id="adminChangeQueue",
    summary="Pause, resume or configure a queue",
    responses={200: answer("The queue as it is now.", models.AdminQueue, example=models.QUEUE), 404: _MISSING},
)
async def change_queue(
    _: AdminCaller, name: QueueName, wanted: models.SettingsBody, ingress: AppIngress, connected: AppConnected
) -> Response:
    """Members that are left out do not change.

    While a queue is paused its tasks are accepted and stay queued, running calls finish, and no task is started; the
    pause survives restarts. Tasks start again within two seconds after `paused` is set to false.
    """
    queue = _find(connected, name)
    changes = _changes(ingress, wanted)
    if changes == QueueChanges():
        names = ", ".join(models.QueueSettingsBody.model_fields)
        raise InvalidRequest(f"name at least one of {names}", field="body")
    wide = _wide(ingress, queue["width"])
    if changes.width is not None and _wide(ingress, changes.width) < wide:
        raise InvalidRequest(f"width only grows: the queue spreads over {wide} partitions now", field="width")
    changed = await connected.queues.configure(connected.producer, queue["name"], changes)
    return await _shown(ingress, connected, changed)


@router.post(
    "/v1/admin/queues/{queue}/purge",
    operation_id="adminPurgeQueue",
    summary="Cancel all waiting tasks of a queue",
    responses={
        200: answer("Done.", models.QueuePurgeReport, example=models.PURGED),
        202: answer(
            "The purge was still under way when the wait was over; it continues.",
            models.QueuePurgeReport,
            example=models.PURGED | {"purged": 400, "left": 600, "done": False},
        ),
        404: _MISSING,
    },
)
async def purge_queue(
    _: AdminCaller, name: QueueName, wanted: models.QueuePurgeBody, ingress: AppIngress, connected: AppConnected
) -> Response:
    """Every task that was accepted before and waits is cancelled, with a result and the reason purged.

    Calls that a worker has started already are not affected.
    """
    queue = _find(connected, name)
    levels = (0, 1) if wanted.level is None else (wanted.level,)
    wait_s = PURGE_WAIT_S if wanted.wait_s is None else wanted.wait_s
    report = await purge(ingress.settings, connected, queue, levels, wait_s=wait_s)
    return answer_json({"object": "purge", **report}, status=200 if report["done"] else 202)


def _find(connected: Connected, name: str) -> Queue:
    queue = connected.queues.get(name)
    if queue is None:
        raise NotFound(f"there is no queue {name[:80]}")
    return queue


def _changes(ingress: Ingress, wanted: models.QueueSettingsBody) -> QueueChanges:
    most = ingress.settings.kafka.partitions
    if wanted.width is not None and not 0 <= wanted.width <= most:
        raise InvalidRequest(f"width must be a whole number from 0 to {most}", field="width")
    retention_s = wanted.result_retention_s
    return QueueChanges(
        width=wanted.width,
        paused=wanted.paused,
        concurrency=wanted.concurrency,
        retention_ms=None if retention_s is None else retention_s * 1000,
        max_waiting=wanted.max_waiting,
    )


def _wide(ingress: Ingress, width: int) -> int:
    partitions = ingress.settings.kafka.partitions
    return width if 0 < width < partitions else partitions


async def _shown(ingress: Ingress, connected: Connected, queue: Queue) -> Response:
    return answer_json(_object(ingress, connected, queue, (await _waiting(ingress, [queue])).get(queue["name"])))


def _object(ingress: Ingress, connected: Connected, queue: Queue, lags: list[Lag] | None) -> dict[str, Any]:
    """Render a queue; of one that workers serve the waiting tasks are known where there is a limit for them."""
    shown = queue_object(queue, lags, limit=drain_rate.limit_of(ingress.settings, queue["name"], queue))
    if shown["waiting"] is None and queue["served_by"] == "workers":
        known = {one.level: one.waiting for one in connected.admission.all() if one.queue == queue["name"]}
        shown["waiting"] = dict(zip(topics.LEVELS, (known[0], known[1]), strict=True)) if len(known) == 2 else None
    return shown


async def _waiting(ingress: Ingress, queues: list[Queue]) -> dict[str, list[Lag]]:
    """Return how far the dispatchers have read each queue, online and offline."""
    works = {
        ingress.settings.topic(topics.work(queue["name"], level)): queue["name"]
        for queue in queues
        if queue["served_by"] != "workers"
        for level in (0, 1)
    }
    found: dict[str, list[Lag]] = {}
    for lag in await ingress.cluster.lags([(work, work) for work in works]):
        found.setdefault(works[lag.topic], []).append(lag)
    return found


def queue_object(queue: Queue, lags: list[Lag] | None, *, limit: int) -> dict[str, Any]:
    """Render a queue; the number of waiting tasks is null where it is not known."""
    known = lags is not None and len(lags) == 2
    retention_ms = queue["retention_ms"]
    return {
        "object": "queue",
        "name": queue["name"],
        "number": queue["number"],
        "endpoint": queue["endpoint"],
        "owner": queue["owner"],
        "created_at": moment(queue["created_ms"]),
        "registered_by": "name" if queue["explicit"] else "first task",
        "served_by": queue["served_by"],
        "paused": queue["paused"],
        "width": queue["width"],
        "concurrency": queue["concurrency"],
        "result_retention_s": None if retention_ms is None else retention_ms // 1000,
        "max_waiting": limit or None,
        "waiting": dict(zip(topics.LEVELS, (one.waiting for one in lags or ()), strict=True)) if known else None,
    }
