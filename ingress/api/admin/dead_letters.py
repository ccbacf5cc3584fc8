"""Dead letters for administrators: look at them, send them back, delete them."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.dead_letters.queue import PARTITIONS, DeadLetter, DeadLetterFilter, DeadLetterQueue
from core.errors import InvalidRequest
from ingress.api.admin.fields import MAX_BODY, JsonFields, answer, limit_of, parameters, time_of
from ingress.api.tasks.serialization import moment
from ingress.http.body import read_body
from ingress.runtime import Ingress

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
REDRIVE_LIMIT, MAX_REDRIVE = 1_000, 10_000
SHOWN_BYTES = 65_536
MAX_OFFSET = (1 << 63) - 1
TRUTH = {"true": True, "false": False}


class DeadLetterRoutes:
    """Dead letters of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    @property
    def _letters(self) -> DeadLetterQueue:
        return DeadLetterQueue(self._ingress.settings, self._ingress.cluster)

    def routes(self) -> list[Route]:
        """List the routes."""
        return [
            Route("/v1/admin/dead-letters", self.page, methods=["GET"]),
            Route("/v1/admin/dead-letters/redrive", self.redrive, methods=["POST"]),
            Route("/v1/admin/dead-letters/purge", self.purge, methods=["POST"]),
            Route("/v1/admin/dead-letters/{letter_id}", self.show, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """List dead letters, the newest first."""
        self._ingress.keys.caller(request, "admin")
        names = ("after", "limit", "reason", "redriven", "topic")
        query = parameters(request.query_params.multi_items(), names)
        redriven = query.get("redriven")
        if redriven is not None and redriven not in TRUTH:
            raise InvalidRequest("redriven must be true or false", field="redriven")
        wanted = DeadLetterFilter(
            query.get("reason"), query.get("topic"), None if redriven is None else TRUTH[redriven]
        )
        limit = limit_of(query.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
        found, below = await self._letters.list_page(wanted, limit=limit, below=_below(query.get("after")))
        more = None if below is None else "-".join(str(below[number]) for number in PARTITIONS)
        data = [dead_letter_object(one) for one in found]
        return answer({"object": "list", "data": data, "has_more": more is not None, "next_cursor": more})

    async def show(self, request: Request) -> Response:
        """Show a dead letter with its headers and its value."""
        self._ingress.keys.caller(request, "admin")
        letter = await self._letters.get(request.path_params["letter_id"])
        kept = {name: (value or b"").decode(errors="replace") for name, value in letter.found.headers}
        return answer({**dead_letter_object(letter), "headers": kept, **_value(letter.found.value)})

    async def redrive(self, request: Request) -> Response:
        """Write original records back to where they came from: some by id, or all that fit and were not yet."""
        self._ingress.keys.caller(request, "admin")
        names = ("again", "dry_run", "ids", "limit", "reason", "topic")
        given = JsonFields(await read_body(request, limit=MAX_BODY * 4), names)
        wanted = DeadLetterFilter(given.text("reason"), given.text("topic"), None if given.boolean("again") else False)
        dry, ids = given.boolean("dry_run", default=False), given.texts("ids", MAX_REDRIVE)
        limit = given.integer("limit", 1, MAX_REDRIVE) or REDRIVE_LIMIT
        if ids is None:
            ids = await self._letters.select(wanted, limit=limit)
        elif wanted.reason is not None or wanted.topic is not None:
            raise InvalidRequest("name ids, or choose by reason and topic", field="ids")
        if dry:
            return answer({"object": "redrive", "dry_run": True, "redriven": 0, "chosen": ids, "skipped": {}})
        done = await self._letters.redrive(
            self._ingress.connected().producer, list(dict.fromkeys(ids)), now_ms=lambda: time.time_ns() // 1_000_000
        )
        told = {"redriven": len(done.sent), "chosen": ids, "skipped": done.skipped}
        return answer({"object": "redrive", "dry_run": False, **told})

    async def purge(self, request: Request) -> Response:
        """Delete letters for good: all, those before a time, or those of a partition before an offset."""
        self._ingress.keys.caller(request, "admin")
        given = JsonFields(await read_body(request, limit=MAX_BODY), ("all", "before", "offset", "partition"))
        everything, before = given.boolean("all"), given.text("before", 64)
        partition = given.integer("partition", 0, len(PARTITIONS) - 1)
        offset = given.integer("offset", 0, MAX_OFFSET)
        if (partition is None) != (offset is None):
            missing = "offset" if offset is None else "partition"
            raise InvalidRequest("partition and offset go together", field=missing)
        if [everything is True, before is not None, partition is not None].count(True) != 1:
            raise InvalidRequest("say all, or before, or partition and offset", field="body")
        if partition is not None and offset is not None:
            offsets = {partition: offset}
        else:
            at_ms = None if before is None else time_of(before, "before")
            offsets = await self._letters.offsets_at(at_ms)
        return answer({"object": "purge", "deleted": await self._letters.delete_before(offsets)})


def dead_letter_object(letter: DeadLetter) -> dict[str, Any]:
    """Render a dead letter without its value."""
    found = letter.found
    left = letter.header("x-left-behind-bytes")
    return {
        "object": "dead_letter",
        "id": letter.id,
        "reason": letter.header("x-reason"),
        "field": letter.header("x-field"),
        "topic": letter.header("x-topic"),
        "partition": _number(letter.header("x-partition")),
        "offset": _number(letter.header("x-offset")),
        "attempt": _number(letter.header("x-attempt")),
        "buried_at": moment(max(0, found.timestamp)),
        "key": None if found.key is None else found.key.decode(errors="replace"),
        "bytes": _number(left) if left is not None else len(found.value or b""),
        "queue": letter.header("x-queue"),
        "owner": letter.header("x-owner"),
        "redriven_at": None if letter.redriven_ms is None else moment(letter.redriven_ms),
    }


def _value(value: bytes | None) -> dict[str, Any]:
    """Render a value as text where it is text, else in base64; only its beginning when it is long."""
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
    """Read a cursor: below which offset of each partition the page goes on."""
    if text is None:
        return None
    parts = [_number(part) for part in text.split("-")]
    numbers = [part for part in parts if part is not None]
    if len(numbers) != len(PARTITIONS) or len(parts) != len(PARTITIONS):
        raise InvalidRequest("after must be the next_cursor of the page before", field="after")
    return dict(zip(PARTITIONS, numbers, strict=True))
