"""Dead letters for administrators: list, show, redrive, delete."""

from __future__ import annotations

import math
from base64 import b64encode
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path
from starlette.responses import Response

from core.clock import epoch_ms
from core.dead_letters.queue import PARTITIONS, DeadLetter, DeadLetterFilter, DeadLetterQueue
from core.errors import InvalidRequest
from ingress.api.admin import models
from ingress.api.admin.models import answer_json
from ingress.api.tasks.serialization import moment
from ingress.http.dependencies import AdminCaller, AppConnected, AppIngress
from ingress.http.routing import answer, api_router, error
from ingress.runtime import Ingress

REDRIVE_LIMIT = 1_000
SHOWN_BYTES = 65_536
TRUTH = {None: None, "true": True, "false": False}
router = api_router("Administration")


@router.get(
    "/v1/admin/dead-letters",
    operation_id="adminListDeadLetters",
    summary="List the dead letters",
    responses={
        200: answer("A page.", models.DeadLetterList, example=models.page_of(models.DEAD_LETTER)),
        400: error("A parameter is wrong."),
    },
)
async def list_dead_letters(_: AdminCaller, query: models.DeadLettersParameters, ingress: AppIngress) -> Response:
    """The newest first.

    A page reads 5,000 dead letters of each partition at most: with a rare filter it may be empty and still have a
    next one.
    """
    wanted = DeadLetterFilter(query.reason, query.topic, TRUTH[query.redriven])
    found, below = await _queue(ingress).list_page(wanted, limit=query.limit, below=_below(query.after))
    more = None if below is None else "-".join(str(below[number]) for number in PARTITIONS)
    data = [dead_letter_object(one) for one in found]
    return answer_json({"object": "list", "data": data, "has_more": more is not None, "next_cursor": more})


@router.post(
    "/v1/admin/dead-letters/redrive",
    operation_id="adminRedrive",
    summary="Redrive dead letters",
    responses={
        200: answer(
            "What was redriven.",
            models.RedriveReport,
            example={"object": "redrive", "dry_run": False, "redriven": 1, "chosen": ["2-17"], "skipped": {}},
        )
    },
)
async def redrive(_: AdminCaller, given: models.RedriveBody, ingress: AppIngress, connected: AppConnected) -> Response:
    """Write original records to their original topics and partitions once more.

    A dead letter is redriven once, unless `again` is set or its id is named.
    """
    dead_letters, ids = _queue(ingress), given.ids
    if ids is None:
        wanted = DeadLetterFilter(given.reason, given.topic, None if given.again else False)
        ids = await dead_letters.select(wanted, limit=given.limit or REDRIVE_LIMIT)
    elif given.reason is not None or given.topic is not None:
        raise InvalidRequest("name ids, or choose by reason and topic", field="ids")
    if given.dry_run:
        return answer_json({"object": "redrive", "dry_run": True, "redriven": 0, "chosen": ids, "skipped": {}})
    done = await dead_letters.redrive(connected.producer, list(dict.fromkeys(ids)), now_ms=epoch_ms)
    counts = {"redriven": len(done.sent), "chosen": ids, "skipped": done.skipped}
    return answer_json({"object": "redrive", "dry_run": False, **counts})


@router.post(
    "/v1/admin/dead-letters/purge",
    operation_id="adminPurgeDeadLetters",
    summary="Delete dead letters",
    responses={200: answer("Deleted.", models.DeadLetterPurgeReport, example={"object": "purge", "deleted": 12})},
)
async def purge_dead_letters(_: AdminCaller, given: models.DeadLetterPurgeBody, ingress: AppIngress) -> Response:
    """For good: all, those before a time, or those of a partition before an offset."""
    if (given.partition is None) != (given.offset is None):
        missing = "offset" if given.offset is None else "partition"
        raise InvalidRequest("partition and offset go together", field=missing)
    if [given.everything is True, given.before is not None, given.partition is not None].count(True) != 1:
        raise InvalidRequest("say all, or before, or partition and offset", field="body")
    dead_letters = _queue(ingress)
    if given.partition is not None and given.offset is not None:
        offsets = {given.partition: given.offset}
    else:
        offsets = await dead_letters.offsets_at(None if given.before is None else time_of(given.before, "before"))
    return answer_json({"object": "purge", "deleted": await dead_letters.delete_before(offsets)})


@router.get(
    "/v1/admin/dead-letters/{letter_id}",
    operation_id="adminShowDeadLetter",
    summary="Show a dead letter",
    responses={
        200: answer(
            "The dead letter.",
            models.DeadLetterDetails,
            example=models.DEAD_LETTER
            | {"headers": {"x-field": "level"}, "value": "{}", "value_encoding": "text", "value_cut": False},
        ),
        404: error("There is no such dead letter."),
    },
)
async def show_dead_letter(
    _: AdminCaller,
    dead_letter_id: Annotated[str, Path(alias="letter_id", description="PARTITION-OFFSET, as the list has it.")],
    ingress: AppIngress,
) -> Response:
    """With its headers and its value."""
    found = await _queue(ingress).get(dead_letter_id)
    headers = {name: (value or b"").decode(errors="replace") for name, value in found.found.headers}
    return answer_json({**dead_letter_object(found), "headers": headers, **_value(found.found.value)})


def dead_letter_object(one: DeadLetter) -> dict[str, Any]:
    """Render a dead letter without its value."""
    found = one.found
    left = one.header("x-left-behind-bytes")
    return {
        "object": "dead_letter",
        "id": one.id,
        "reason": one.header("x-reason"),
        "field": one.header("x-field"),
        "topic": one.header("x-topic"),
        "partition": _number(one.header("x-partition")),
        "offset": _number(one.header("x-offset")),
        "attempt": _number(one.header("x-attempt")),
        "buried_at": moment(max(0, found.timestamp)),
        "key": None if found.key is None else found.key.decode(errors="replace"),
        "bytes": _number(left) if left is not None else len(found.value or b""),
        "queue": one.header("x-queue"),
        "owner": one.header("x-owner"),
        "redriven_at": None if one.redriven_ms is None else moment(one.redriven_ms),
    }


def time_of(text: str, name: str) -> int:
    """Read a time as ISO 8601, in UTC unless it has an offset; returns epoch milliseconds. Raises InvalidRequest."""
    try:
        at = datetime.fromisoformat(text)
        found = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        found = math.nan
    if not found >= 0:
        raise InvalidRequest(f"{name} must be a time such as 2026-01-31T12:00:00Z", field=name)
    return round(found * 1000)


def _queue(ingress: Ingress) -> DeadLetterQueue:
    return DeadLetterQueue(ingress.settings, ingress.cluster)


def _value(value: bytes | None) -> dict[str, Any]:
    """Render a value as text if it is text, else in base64; only its beginning when it is long."""
    if value is None:
        return {"value": None}
    cut, shown = len(value) > SHOWN_BYTES, value[:SHOWN_BYTES]
    try:
        return {"value": shown.decode(), "value_encoding": "text", "value_cut": cut}
    except UnicodeDecodeError:
        return {"value": b64encode(shown).decode(), "value_encoding": "base64", "value_cut": cut}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 19 else None


def _below(text: str | None) -> dict[int, int] | None:
    """Read a cursor: below which offset of each partition the page continues."""
    if text is None:
        return None
    parts = [_number(part) for part in text.split("-")]
    numbers = [part for part in parts if part is not None]
    if len(numbers) != len(PARTITIONS) or len(parts) != len(PARTITIONS):
        raise InvalidRequest("after must be the next_cursor of the page before", field="after")
    return dict(zip(PARTITIONS, numbers, strict=True))
