"""Tasks of all tenants for administrators: list, show, cancel, and run one that has ended again."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from starlette.requests import Request
from starlette.responses import Response

from core.errors import Gone, InvalidRequest, NotFound, Unavailable
from core.kafka.task_records import task_of
from core.storage.blobs import BlobCorrupt, BlobMissing
from ingress.api.admin import models
from ingress.api.admin.models import answer_json
from ingress.api.examples import TASK_TEXT
from ingress.api.tasks.listing import Page, Query, cursor, query_of, read_page
from ingress.api.tasks.serialization import moment, task_object
from ingress.connected import Connected
from ingress.http.dependencies import AdminCaller, AppConnected, AppIngress, TaskIdPath
from ingress.http.request import traceparent
from ingress.http.routing import answer, api_router, error
from ingress.read_model import listing_index
from ingress.read_model.listing_index import PREFIX, ListingPosition
from ingress.read_model.task_snapshot import TaskSnapshot
from ingress.read_model.task_view import TaskView
from ingress.runtime import Ingress
from ingress.submission.cancel import cancel_task
from schemas import ids, topics
from schemas.records import NO_ORIGIN, TERMINAL, Status, Task
from schemas.task_body import for_rerun

ROW_TIMES = ("not_before_ms", "start_deadline_ms", "lease_until_ms")
ROW_FACTS = (
    "mode",
    "attempt",
    "lost_workers",
    "worker",
    "callback_url",
    "duplicate_of",
    "replay_of",
    "batch_id",
    "batch_line",
    "custom_id",
    "reply_topic",
    "idempotency_key",
    "content_type",
)
OWNERS = 1_000
"""Tenants whose lists one page merges; with more of them a tenant has to be named."""
router = api_router("Administration")


class SortPosition(NamedTuple):
    """A position in the merged order: the newest first, and by id within a millisecond."""

    newer_ms: int
    id: str


@router.get(
    "/v1/admin/tasks",
    operation_id="adminListTasks",
    summary="List the tasks of all tenants",
    responses={
        200: answer("A page of tasks.", models.AdminTaskList, example=models.page_of(models.TASK)),
        400: error("A parameter is wrong."),
        404: error("There is no task with the id in `after`."),
    },
)
async def list_tasks(_: AdminCaller, given: models.AdminTasksParameters, connected: AppConnected) -> Response:
    """Newest first. Tasks without a tenant are not listed."""
    query = query_of(given)
    view = connected.view
    if not view.caught_up:
        raise Unavailable("the read model has not caught up yet; try again in some seconds")
    found = await read_all(view, owners(view) if given.owner is None else [given.owner], query)
    following = None if found.next is None else cursor(found.next)
    data = [_listed(one) for one in found.tasks]
    return answer_json({"object": "list", "data": data, "has_more": following is not None, "next_cursor": following})


@router.get(
    "/v1/admin/tasks/{task_id}",
    operation_id="adminShowTask",
    summary="Show a task of any tenant",
    responses={200: answer("The task.", models.AdminTask, example=models.TASK)},
)
async def show_task(_: AdminCaller, task_id: TaskIdPath, connected: AppConnected) -> Response:
    """All that is known of the task, except its bodies."""
    return _shown(connected, await connected.task_lookup.find_state(task_id, owner=None))


@router.post(
    "/v1/admin/tasks/{task_id}/cancel",
    operation_id="adminCancelTask",
    summary="Cancel a task of any tenant",
    responses={
        200: answer("The task.", models.AdminTask, example=models.TASK),
        400: error("The task has ended already."),
    },
)
async def cancel(_: AdminCaller, task_id: TaskIdPath, connected: AppConnected) -> Response:
    """The same as a cancel by its tenant."""
    asked = await cancel_task(connected, task_id, owner=None)
    return _shown(connected, await connected.task_lookup.find_state(asked.id, owner=None))


@router.post(
    "/v1/admin/tasks/{task_id}/requeue",
    operation_id="adminRequeueTask",
    summary="Run a task that has ended again",
    responses={
        202: answer("The new task.", models.AdminTask, example=models.TASK | {"replay_of": TASK_TEXT}),
        410: error("The request of the task is no longer retained."),
    },
)
async def requeue_task(
    caller: AdminCaller,
    task_id: TaskIdPath,
    given: models.RequeueBody,
    request: Request,
    ingress: AppIngress,
    connected: AppConnected,
) -> Response:
    """A new task of the same tenant with the same request; its `replay_of` names the first."""
    ended = await connected.task_lookup.find_state(task_id, owner=None)
    if ended.state not in TERMINAL:
        raise InvalidRequest(f"task {ended.id} has not ended yet ({ended.state})")
    task = await _again(ingress, connected, ended)
    if not given.callback:
        task["callback_url"], task["callback_events"] = None, []
    ticket, record = await connected.submitter.prepare(
        task, owner=ended.owner or caller.owner, traceparent=traceparent(request)
    )
    offset = await connected.submitter.send(ticket, record)
    connected.recent_writes.add(ticket.owner, ticket.key, offset=offset)
    if given.wait_s:
        await connected.view.wait_until_ended(ticket.key, seconds=given.wait_s)
    reading = await connected.task_lookup.find(ticket.text, owner=None, data=False)
    return answer_json({**_listed(reading), "replay_of": ended.id}, status=202)


def owners(view: TaskView, *, most: int = OWNERS) -> list[str]:
    """List the tenants that have tasks by seeking from one to the next; raises InvalidRequest for too many."""
    found: list[str] = []
    begin, end = PREFIX, PREFIX[:-1] + bytes([PREFIX[-1] + 1])
    while entries := view.scan(begin, end, limit=1):
        if len(found) == most:
            raise InvalidRequest(f"more than {most} owners have tasks; name one", field="owner")
        owner = listing_index.owner(entries[0][0])
        found.append(owner)
        begin = listing_index.since(owner, -1) + b"\xff"
    return found


async def read_all(view: TaskView, names: list[str], query: Query) -> Page:
    """Return a page of the tasks of some tenants; raises NotFound for an unknown `after`.

    The read model has an order for each tenant, so that a list costs no tenant anything for the tasks of others; here
    these lists are merged.
    """
    after = query.after
    if isinstance(after, ids.TaskId):
        row = view.get(str(after).encode())
        if row is None:
            raise NotFound(f"there is no task {after.task()}", field="after")
        after = ListingPosition(row["created_ms"], row["id"])
    pages = [await read_page(view, name, query._replace(after=after)) for name in names]
    found = sorted((reading for page in pages for reading in page.tasks), key=_position)
    # Beyond this nothing is certain: an owner whose page is full, or ended early, may have more before the next one.
    sure = min(
        (SortPosition(-page.next.created_ms, page.next.id) for page in pages if page.next is not None), default=None
    )
    shown = [one for one in found if sure is None or _position(one) <= sure][: query.limit]
    if len(shown) == query.limit and (sure is not None or len(found) > len(shown)):
        return Page(shown, ListingPosition(shown[-1].created_ms, shown[-1].id))
    return Page(shown, None if sure is None else ListingPosition(-sure.newer_ms, sure.id))


def _position(reading: TaskSnapshot) -> SortPosition:
    return SortPosition(-reading.created_ms, reading.id)


async def _again(ingress: Ingress, connected: Connected, ended: TaskSnapshot) -> Task:
    """Build the new task from the record of the old one; raises Gone."""
    home = ids.parse(ended.id)
    row = connected.view.get(ended.id.encode())
    if row is None or row["source_offset"] < 0:
        raise Gone(f"the record of {ended.id} is no longer retained")
    tp = TopicPartition(ingress.settings.topic(topics.tasks(home.level)), home.partition)
    found = await connected.log_reader.read(tp, row["source_offset"])
    task = task_of(found, ended.id)
    if task is None:
        raise Gone(f"the record of {ended.id} is no longer retained")
    if task["data_ref"] is not None:
        try:
            task["data"], task["data_ref"] = await ingress.blobs.get(task["data_ref"]), None
        except (BlobMissing, BlobCorrupt):
            raise Gone(f"the request of {ended.id} is no longer retained") from None
    # No client waits for the new task, and the idempotency key belongs to the first one.
    mode = "callback" if task["mode"] in ("blocking", "streaming", "batch") else task["mode"]
    lineage = {**NO_ORIGIN, "replay_of": ended.id}
    again: Task = {**task, **lineage, "mode": mode, "idempotency_key": None}  # type: ignore[typeddict-item]  # a spread of the same fields
    again["model"] = row["model"]  # which a direct producer's record need not name
    again["timeout_ms"] = max(task["timeout_ms"], ended.deadline_ms - ended.created_ms)
    return for_rerun(again)


def _shown(connected: Connected, reading: TaskSnapshot) -> Response:
    row = connected.view.get(reading.id.encode())
    queue = connected.queues.get(reading.queue)
    paused = queue is not None and queue["paused"]
    return answer_json({**_listed(reading), **({} if row is None else _details(row, paused=paused))})


def _listed(reading: TaskSnapshot) -> dict[str, Any]:
    return {**task_object(reading), "task_id": reading.id, "owner": reading.owner}


def _details(row: Status, *, paused: bool) -> dict[str, Any]:
    """Render what only operators see; members without a value are left out."""
    facts: dict[str, Any] = {name: row[name] for name in ROW_FACTS}  # type: ignore[literal-required]
    for name in ROW_TIMES:
        at_ms: int | None = row[name]  # type: ignore[literal-required]
        facts[name.removesuffix("_ms") + "_at"] = None if at_ms is None else moment(at_ms)
    if row["batch_id"] is None:
        facts["batch_line"] = None
    facts["waits_for"] = _waits_for(row, paused=paused)
    return {name: value for name, value in facts.items() if value is not None}


def _waits_for(row: Status, *, paused: bool) -> str | None:
    if row["state"] != "queued":
        return None
    if paused:
        return "its queue, which is paused"
    if row["not_before_ms"] is not None and row["not_before_ms"] > time.time() * 1000:
        return f"its next attempt at {moment(row['not_before_ms'])}"
    return "a worker that takes it"
