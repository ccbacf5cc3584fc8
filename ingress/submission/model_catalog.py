"""The models that the upstreams serve: their lists, refreshed every 30 s, cached and merged."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from core import lenient_json
from core.errors import ModelNotFound, Unavailable
from core.reachability import why
from core.settings.models import Settings

log = logging.getLogger(__name__)

REFRESH_S = 30.0
REQUEST_TIMEOUT_S = 3.0
"""Time-out of one request; a slower upstream keeps its last list."""
MIN_INTERVAL_S = 1.0
"""A list younger than this is not asked for again, however many unknown models are named."""
FRESH_S = 2.5 * REFRESH_S
"""Models are refused only by lists that are more recent; a list that missed two refreshes is ignored."""
MAX_BYTES = 4_194_304
OWNER = "upstream"
"""Of a model whose server names no owner, for clients that insist on one."""

Model = dict[str, Any]


class UpstreamModels:
    """The last model list of one upstream."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.complete = False
        self.at = -math.inf
        self.answers = True
        """Whether the last question was answered; one that goes unanswered for long is logged once."""
        self.problem = ""
        """What the server did instead of an answer over HTTP, when it was asked last."""

    def fresh(self, now: float) -> bool:
        """Tell whether it may be used to say that a model is not there."""
        return self.complete and now - self.at < FRESH_S


class ModelCatalog:
    """The models of all upstreams; the first upstream that lists one describes it."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listings = {base: UpstreamModels() for base in settings.upstream.urls}
        self._queue = settings.ingress.default_queue
        self._known = frozenset(settings.models)
        self._checks = settings.ingress.check_models
        self._headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "headrace"}
        if (key := settings.upstream.api_key) is not None:
            self._headers["authorization"] = f"Bearer {key.get_secret_value()}"
        self._transport = transport
        self._trust: ssl.SSLContext | None = None
        self._clock = clock
        self._asked_at = -math.inf
        self._asking: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask in the background."""
        self._loop = asyncio.create_task(self._run(), name="model-catalogue")

    async def close(self) -> None:
        """Stop asking."""
        tasks = [task for task in (self._loop, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def models(self) -> list[Model]:
        """Return every model; raises Unavailable when no upstream has returned a list yet."""
        if not self._any_known():
            await self.refresh()
        if not self._any_known():
            raise Unavailable("no model server has listed its models yet; try again in some seconds")
        return merged((listing.models for listing in self._listings.values()), queue=self._queue)

    async def model(self, name: str) -> Model:
        """Return one model; raises ModelNotFound, and Unavailable when no upstream has returned a list yet."""
        for fresh in (False, True):
            if fresh:
                await self.refresh()
            for model in await self.models():
                if model["id"] == name:
                    return model
        raise _not_found(name)

    async def check(self, name: str) -> None:
        """Refuse a model that no upstream serves; raises ModelNotFound.

        Only when every upstream has returned a complete list recently, and again now: else the request is passed on,
        because a list may be truncated, and a server may accept names that it does not list.
        """
        if not self._checks or name in self._known or not self._absent(name):
            return
        await self.refresh()
        if self._absent(name):
            raise _not_found(name)

    async def refresh(self) -> None:
        """Request the lists of all upstreams now; concurrent callers share one request."""
        if self._asking is None or self._asking.done():
            if self._clock() - self._asked_at < MIN_INTERVAL_S:
                return
            self._asking = asyncio.create_task(self._ask_all(), name="model-catalog-refresh")
        await asyncio.shield(self._asking)

    def problems(self) -> dict[str, str]:
        """Return the last connection problem of each upstream; empty when it answered."""
        return {base: listing.problem for base, listing in self._listings.items()}

    def _any_known(self) -> bool:
        return any(listing.models or listing.complete for listing in self._listings.values())

    def _absent(self, name: str) -> bool:
        now = self._clock()
        return all(
            listing.fresh(now) and all(model["id"] != name for model in listing.models)
            for listing in self._listings.values()
        )

    async def _run(self) -> None:
        """Refresh until cancelled: often at first, because model servers start slowly."""
        pause_s = MIN_INTERVAL_S
        while True:
            await self.refresh()
            now = self._clock()
            known = all(listing.fresh(now) for listing in self._listings.values())
            await asyncio.sleep(REFRESH_S if known else pause_s)
            pause_s = MIN_INTERVAL_S if known else min(2 * pause_s, REFRESH_S)

    async def _ask_all(self) -> None:
        # Not in the constructor: reading the system's certificates takes some 20 ms.
        trust = self._trust = self._trust or ssl.create_default_context()
        async with httpx.AsyncClient(
            transport=self._transport, verify=trust, trust_env=False, timeout=REQUEST_TIMEOUT_S, headers=self._headers
        ) as client:
            await asyncio.gather(*(self._ask(client, base) for base in self._listings))
        self._asked_at = self._clock()

    async def _ask(self, client: httpx.AsyncClient, base: str) -> None:
        listing = self._listings[base]
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                found, complete = await _listed(client, base)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
            if listing.answers:
                reason = str(error) or type(error).__name__
                log.info(
                    "cannot list the models of %s: %s",
                    base,
                    reason,
                    extra={"event": "model_list_failed", "upstream": base},
                )
            listing.answers = False
            listing.problem = why(error) if isinstance(error, httpx.TransportError | OSError) else ""
        else:
            listing.problem = ""
            listing.models, listing.complete, listing.at, listing.answers = found, complete, self._clock(), True


def merged(lists: Iterable[list[Model]], *, queue: str) -> list[Model]:
    """Merge lists: the first list with a model describes it; each model gets the queue that its calls go to."""
    found: dict[str, Model] = {}
    for models in lists:
        for model in models:
            found.setdefault(model["id"], _described(model, queue))
    return list(found.values())


def _described(model: Model, queue: str) -> Model:
    created, owner = model.get("created"), model.get("owned_by")
    return {
        **model,
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": owner if isinstance(owner, str) else OWNER,
        "queue": queue,
    }


def read_list(body: bytes) -> tuple[list[Model], bool]:
    """Parse a model list: its models, and whether it is complete; raises ValueError."""
    document = lenient_json.loads(lenient_json.strict(body) or body)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise ValueError("its answer is no list of models")
    models = [model for model in data if isinstance(model, dict) and isinstance(model.get("id"), str)]
    whole = bool(models) and len(models) == len(data) and not document.get("has_more")
    return models, whole


async def _listed(client: httpx.AsyncClient, base: str) -> tuple[list[Model], bool]:
    async with client.stream("GET", f"{base}/models") as response:
        if response.status_code != 200:
            raise ValueError(f"it answered {response.status_code}")
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                raise ValueError(f"its list is larger than {MAX_BYTES} bytes")
    return read_list(bytes(body))


def _not_found(name: str) -> ModelNotFound:
    return ModelNotFound(f"The model `{name[:80]}` does not exist; GET /v1/models lists those that do", field="model")
