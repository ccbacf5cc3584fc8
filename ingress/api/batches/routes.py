"""The routes of batches: create, look, list, cancel, and the answers as far as there are any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.deliveries import BATCH_OUTCOMES
from core.errors import InvalidRequest, NotFound, WriteUnconfirmed
from core.settings.callback_policy import callback_policy
from ingress.api.batches import problems
from ingress.api.batches.serialization import DIALECTS, Dialect, batch_object, list_object
from ingress.api.openai import responses as openai
from ingress.api.tasks.deliveries import delivery_object
from ingress.batches.end_notification import end_notification
from ingress.batches.idempotency import create_once
from ingress.batches.request import parse_batch_request
from ingress.files.content import content_answer
from ingress.files.lookup import batch_content
from ingress.http.body import idempotency_key, read_body, traceparent
from ingress.http.dialects import ApiProblem, ErrorRenderer
from ingress.http.methods import route
from ingress.http.options import DIALECT, NONE, QUEUE, read_options
from ingress.runtime import Ingress
from ingress.submission.resend import MAX_BODY as RESEND_BODY
from ingress.submission.resend import send_again, wanted_event
from schemas.batches import Batch, BatchFile

JSON = "application/json"
MAX_BODY = 131_072
DEFAULT_LIMIT, MAX_LIMIT = 20, 100
RENDERERS: Mapping[Dialect, ErrorRenderer] = {"siliconflow": problems.problem, "openai": openai.problem}
UNCONFIRMED = {"x-should-retry": "false"}
"""The SDK would send a 503 again by itself, which could be a second batch."""

Handler = Callable[[Request, Dialect], Awaitable[Response]]


class BatchRoutes:
    """Batches of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._settings = ingress.settings
        self._callbacks = callback_policy(ingress.settings)

    def routes(self) -> list[Route]:
        """List the routes."""
        one = "/v1/batches/{batch_id}"
        return [
            route("/v1/batches", POST=self._spoken(self.create), GET=self._spoken(self.list)),
            route(one, GET=self._spoken(self.get)),
            route(f"{one}/cancel", POST=self._spoken(self.cancel)),
            route(f"{one}/output", GET=self._spoken(self._content(errors=False))),
            route(f"{one}/errors", GET=self._spoken(self._content(errors=True))),
            route(f"{one}/deliveries", GET=self._spoken(self.deliveries)),
            route(f"{one}/deliveries/resend", POST=self._spoken(self.resend)),
        ]

    def _spoken(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Serve in the dialect that the request or the setting names; for errors see asked_renderer."""

        async def serve(request: Request) -> Response:
            return await handler(request, dialect_of(request, default=self._settings.batches.dialect))

        return serve

    async def create(self, request: Request, dialect: Dialect) -> Response:
        """Accept a batch."""
        caller = self._ingress.keys.caller(request, scope="submit")
        self._ingress.limits.submit(caller, request.scope)
        options = read_options(request.headers, hold_s=self._settings.ingress.blocking_timeout_s)
        if options._replace(queue=None) != NONE:
            raise InvalidRequest(
                f"of the X-Headrace headers only {QUEUE} and {DIALECT} go with a batch", field="headers"
            )
        wanted = parse_batch_request(
            await read_body(request, limit=MAX_BODY),
            short_windows=self._settings.batches.allow_short_window,
            callbacks=self._callbacks,
        )
        find_input = partial(self._input, wanted.input_file_id, owner=caller.owner)
        name, key, trace = options.queue or self._settings.batches.queue, idempotency_key(request), traceparent(request)
        connected = self._ingress.connected()
        try:
            if key is not None:
                batch = await create_once(
                    self._settings,
                    connected.batch_commands,
                    connected.batches,
                    wanted,
                    find_input,
                    key=key,
                    owner=caller.owner,
                    name=name,
                    traceparent=trace,
                )
            else:
                batch = await connected.batch_commands.create(
                    wanted, await find_input(), owner=caller.owner, queue=name, traceparent=trace
                )
        except WriteUnconfirmed as error:
            refused = RENDERERS[dialect](ApiProblem(error.http_status, error.code, error.message))
            refused.headers.update(UNCONFIRMED)
            return refused
        connected.batches.remember(batch)
        self._ingress.metrics.answers.labels("batch-create", "", "200").inc()
        return _shown(batch, dialect)

    async def get(self, request: Request, dialect: Dialect) -> Response:
        """Show a batch as it stands."""
        return _shown(await self._find(request), dialect)

    async def cancel(self, request: Request, dialect: Dialect) -> Response:
        """Cancel a batch and show how it stands then."""
        owner = self._ingress.keys.caller(request, scope="submit").owner
        batch = await self._ingress.connected().batch_service.cancel(request.path_params["batch_id"], owner=owner)
        return _shown(batch, dialect)

    async def list(self, request: Request, dialect: Dialect) -> Response:
        """List the caller's batches, the newest first."""
        owner = self._ingress.keys.caller(request, scope="read").owner
        after, limit = read_page(request, names=("after", "limit"), default=DEFAULT_LIMIT, most=MAX_LIMIT)
        batches = self._ingress.connected().batches
        batches.check_read()
        found = batches.of(owner)
        begin = position(after, [batch["id"] for batch in found])
        page = found[begin : begin + limit]
        shown = [self._listed(batch, dialect) for batch in page]
        return _answer(list_object(shown, has_more=len(found) > begin + limit))

    def _listed(self, batch: Batch, dialect: Dialect) -> dict[str, Any]:
        """Build an entry of the list; SiliconFlow's has the name of the file too."""
        entry = batch_object(batch, dialect)
        if dialect == "siliconflow":
            file = self._ingress.connected().files.get(batch["input_file_id"], owner=batch["owner"])
            entry["file_name"] = None if file is None else file["filename"]
        return entry

    async def deliveries(self, request: Request, _: Dialect) -> Response:
        """Show who was told of a batch's end, and when the next attempt is due."""
        batch = await self._find(request)
        data = [delivery_object(one) for one in self._ingress.connected().deliveries.of(batch["id"])]
        return _answer({"object": "list", "batch_id": batch["id"], "data": data})

    async def resend(self, request: Request, _: Dialect) -> Response:
        """Tell of a batch's end again, at once."""
        owner = self._ingress.keys.caller(request, scope="submit").owner
        event = wanted_event(await read_body(request, limit=RESEND_BODY), BATCH_OUTCOMES)
        connected = self._ingress.connected()
        batch = await connected.batch_service.find(request.path_params["batch_id"], owner=owner)
        ended = end_notification(batch, connected.deliveries.of(batch["id"]), event)
        delivery = await send_again(self._settings, connected.producer, connected.deliveries, ended)
        return _answer({"object": "list", "batch_id": batch["id"], "data": [delivery_object(delivery)]}, status=202)

    def _content(self, *, errors: bool) -> Handler:
        async def serve(request: Request, dialect: Dialect) -> Response:
            batch = await self._find(request)
            content = batch_content(batch, errors=errors)
            if content.size and self._ingress.connected().file_lookup.of_batch(batch, errors=errors) is None:
                raise NotFound(f"the output of {batch['id']} has expired")
            return await content_answer(request, self._ingress.blobs, content, refuse=RENDERERS[dialect])

        return serve

    async def _find(self, request: Request) -> Batch:
        owner = self._ingress.keys.caller(request, scope="read").owner
        return await self._ingress.connected().batch_service.find(request.path_params["batch_id"], owner=owner)

    async def _input(self, file_id: str, *, owner: str) -> BatchFile:
        """Return the file of a batch's requests; raises InvalidRequest for anything else, whoever has it."""
        file = await self._ingress.connected().files.find(file_id, owner=owner)
        if file is None:
            raise InvalidRequest(f"input_file_id {file_id} names no file of yours", field="input_file_id")
        if file["purpose"] != "batch":
            raise InvalidRequest(
                f"input_file_id {file_id} was uploaded for {file['purpose']}; its purpose must be batch",
                field="input_file_id",
            )
        return file


def dialect_of(request: Request, *, default: Dialect) -> Dialect:
    """Return the dialect that a request asks for; raises InvalidRequest."""
    given = request.headers.getlist(DIALECT)
    if not given:
        return default
    for dialect in DIALECTS:
        if [text.strip().lower() for text in given] == [dialect]:
            return dialect
    raise InvalidRequest(f"{DIALECT} must be {' or '.join(DIALECTS)}, given once", field=DIALECT)


def asked_renderer(request: Request, *, default: Dialect) -> ErrorRenderer | None:
    """Return how errors below /v1/batches are told, also where there is no route; None for all other paths."""
    if not f"{request.url.path}/".startswith("/v1/batches/"):
        return None
    with suppress(InvalidRequest):
        return RENDERERS[dialect_of(request, default=default)]
    return RENDERERS[default]  # the header names no dialect


def read_page(request: Request, *, names: tuple[str, ...], default: int, most: int) -> tuple[str | None, int]:
    """Read the cursor and the limit of a list; raises InvalidRequest, for a parameter that is not there too."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names or name in given:
            wrong = "was given twice" if name in given else f"is not known; there are {', '.join(names)}"
            raise InvalidRequest(f"parameter {name[:40]} {wrong}", field=name[:40])
        given[name] = value
    text = given.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= most):
        raise InvalidRequest(f"limit must be a whole number from 1 to {most}", field="limit")
    return given.get("after") or None, int(text)


def position(after: str | None, ids: list[str]) -> int:
    """Return where a list goes on after an id; raises InvalidRequest when the caller has no such thing."""
    if after is None:
        return 0
    try:
        return ids.index(after) + 1
    except ValueError:
        raise InvalidRequest(f"after names nothing of this list: {after[:80]}", field="after") from None


def _shown(batch: Batch, dialect: Dialect) -> Response:
    return _answer(batch_object(batch, dialect))


def _answer(body: object, *, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type=JSON, headers={"cache-control": "no-store"})
