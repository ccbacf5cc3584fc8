"""One attempt of a task: call an upstream, store or relay the response, and return the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from core.clock import Clock
from core.kafka.producer import Producer
from core.observability.tracing import tracer
from core.retry_after import retry_after_s
from core.settings.models import Settings
from core.upstream_errors import reason_in
from dispatcher import metrics
from dispatcher.inference import tracing
from dispatcher.inference.bodies import BodyStore, RequestBody
from dispatcher.inference.chunk_writer import ChunkWriter
from dispatcher.inference.outcome import Failure, Report, failure_outcome, response_outcome
from dispatcher.inference.response_check import validated_body
from dispatcher.inference.stream_detection import detect_stream
from dispatcher.inference.stream_relay import Relay
from dispatcher.inference.upstream import CallError, Upstream, UpstreamResponse
from dispatcher.inference.upstream_pool import UpstreamPool
from dispatcher.inference.work_item import WorkItem
from schemas.broken_lines import outcome_of
from schemas.media_types import EVENT_STREAM, JSON, OCTET_STREAM
from schemas.records import Outcome


class Attempt:
    """Calls an upstream for one item; stream data relayed before a failure stays readable."""

    def __init__(
        self,
        item: WorkItem,
        *,
        pool: UpstreamPool,
        relay: Relay | None,
        bodies: BodyStore,
        limit_bytes: int,
        clock: Clock,
    ) -> None:
        """`relay` forwards the stream of a streaming call; None for other calls."""
        self._item = item
        self._pool = pool
        self._relay = relay
        self._bodies = bodies
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._started_ms = clock()
        self._first_byte_ms: int | None = None
        self._traceparent = item.traceparent
        self._upstream: str | None = None

    async def call(self) -> Outcome:
        """Return the outcome of the response; raises CallError.

        While no upstream is reachable it waits: nothing was sent, so that is not an attempt.
        """
        body = self._bodies.request(self._item.work)
        while True:
            upstream = await self._pool.acquire()
            self._upstream = upstream.base
            try:
                return await self._traced(upstream, body)
            except CallError as error:
                if error.failure is not Failure.UNREACHABLE:
                    raise body.failure or error from None
                self._pool.mark_unreachable(upstream, error.detail)
            finally:
                self._pool.release(upstream)

    def failed(self, failure: Failure, detail: str = "", report: Report | None = None) -> Outcome:
        """Build the outcome of a failure, with the part of the stream that was delivered."""
        outcome = failure_outcome(
            failure, started_ms=self._started_ms, upstream=self._upstream, detail=detail, report=report
        )
        if (relay := self._relay) is None:
            return outcome
        return relay.delivered(outcome)

    async def _traced(self, upstream: Upstream, body: RequestBody) -> Outcome:
        """Call within a span, whose context is sent to the upstream."""
        with tracer().span("call", "client", parent=self._item.traceparent) as span:
            self._traceparent = span.traceparent
            tracing.describe_call(span, self._item.work, upstream.base)
            try:
                outcome = await self._timed(upstream, body)
            except CallError as error:
                span.failed(error.failure.value.code)
                raise
            tracing.describe_response(span, outcome)
            return outcome

    async def _timed(self, upstream: Upstream, body: RequestBody) -> Outcome:
        """Apply the run timeout of the task, which does not include the wait for a reachable upstream."""
        run_ms = self._item.work["run_timeout_ms"]
        if not run_ms:
            return await self._call(upstream, body)
        try:
            async with asyncio.timeout(run_ms / 1000):
                return await self._call(upstream, body)
        except TimeoutError:
            raise CallError(Failure.RUN_TIMEOUT, f"{run_ms / 1000:g} s") from None

    async def _call(self, upstream: Upstream, body: RequestBody) -> Outcome:
        content = await body.open()
        async with upstream.post(self._item.work["endpoint"], content, self._headers(body.size)) as response:
            if 300 <= response.status < 400:
                raise CallError(Failure.REDIRECT, f"{response.status} to {response.header('location') or 'nowhere'}")
            content_type = response.header("content-type") or ""
            pieces = response.iter_bytes()
            if self._relay is not None and response.status < 300:
                is_stream, pieces = await detect_stream(pieces, content_type)
                if is_stream:
                    await self._relay.forward_stream(pieces)
                    return await self._streamed(self._relay, response.status)
                if content_type.lower().startswith(EVENT_STREAM):
                    content_type = JSON  # its content type was wrong
            return await self._buffered(response, pieces, upstream, content_type)

    async def _buffered(
        self, response: UpstreamResponse, pieces: AsyncIterator[bytes], upstream: Upstream, content_type: str
    ) -> Outcome:
        """Read a response into memory, or into the object store when it is large."""
        place = self._bodies.response(self._item.work, media_type=content_type or OCTET_STREAM)
        try:
            async for data in pieces:
                self._first_byte_ms = self._first_byte_ms or self._clock()
                await place.write(data)
                self._check_size(place.size)
            stored = await place.finish()
        finally:
            place.discard()
        body = stored.body
        if response.status < 300 and stored.body_ref is None:
            body = validated_body(response.status, stored.body or b"", content_type)
        return response_outcome(
            response.status,
            body=body,
            body_ref=stored.body_ref,
            content_type=content_type,
            upstream=upstream.base,
            started_ms=self._started_ms,
            usage=stored.usage,
            first_token_ms=self._first_byte_ms,
            retry_after=self._retry_after(response, upstream),
            reason=reason_in(stored.body, content_type) if response.status >= 300 else None,
        )

    def _headers(self, size: int) -> dict[str, str]:
        content_type = self._item.work["content_type"]
        headers = {
            "content-type": content_type,
            "content-length": str(size),  # known for a streamed body too: many model servers do not accept chunked ones
            # a form may request text, subtitles or JSON
            "accept": EVENT_STREAM if self._relay is not None else JSON if content_type == JSON else "*/*",
            "x-task-id": self._item.work["id"],
        }
        if self._traceparent is not None:
            headers["traceparent"] = self._traceparent.decode("latin-1")
        return headers

    async def _streamed(self, relay: Relay, status: int) -> Outcome:
        text = await relay.finish()
        return response_outcome(
            status,
            body=text.data,
            body_ref=text.data_ref,
            content_type=EVENT_STREAM,
            upstream=self._upstream or "",
            started_ms=self._started_ms,
            chunks=relay.chunks,
            usage=relay.usage,
            first_token_ms=relay.first_token_ms,
        )

    def _retry_after(self, response: UpstreamResponse, upstream: Upstream) -> int | None:
        """Parse Retry-After; from an overloaded upstream it applies to the pool."""
        wait_s = retry_after_s(response.header("retry-after"), now_ms=self._clock())
        if wait_s is None:
            return None
        if response.status in (429, 503):
            self._pool.back_off(upstream, wait_s)
        return int(wait_s * 1000)

    def _check_size(self, size: int) -> None:
        if size > self._limit_bytes:
            raise CallError(Failure.TOO_LARGE, f"more than {self._limit_bytes} bytes")


class AttemptWorker:
    """Runs work items and returns their outcomes."""

    def __init__(
        self, settings: Settings, *, name: str, pool: UpstreamPool, chunks: Producer, bodies: BodyStore, clock: Clock
    ) -> None:
        self._settings = settings
        self._name = name
        self._pool = pool
        self._chunks = chunks
        self._bodies = bodies
        self._clock = clock

    async def run(self, item: WorkItem) -> Outcome:
        """Call until there is an outcome or the task's deadline has passed; a cancel closes the connection."""
        with tracer().span("process", "consumer", parent=item.traceparent) as span:
            item.traceparent = span.traceparent
            tracing.describe_attempt(span, self._settings, item.work)
            outcome = await self._run(item)
            tracing.end_attempt(span, outcome)
            metrics.observe_attempt(item.work, outcome)
            return outcome

    async def _run(self, item: WorkItem) -> Outcome:
        broken = outcome_of(item.work["content_type"], item.work["data"], started_ms=self._clock())
        if broken is not None:
            return broken
        left_s = (item.work["deadline_ms"] - self._clock()) / 1000
        if item.work["mode"] == "streaming":
            return await self._streamed(item, left_s)
        return await _bounded(self._attempt(item, None), left_s)

    async def _streamed(self, item: WorkItem, left_s: float) -> Outcome:
        writer = ChunkWriter(
            self._settings, self._chunks, item.work, worker=self._name, home=item.home, clock=self._clock
        )
        spool = self._bodies.spool(item.work, media_type=EVENT_STREAM)
        relay = Relay(writer, spool, limit_bytes=self._settings.dispatcher.max_answer_bytes)
        attempt = self._attempt(item, relay)
        item.delivered = relay.started
        item.deltas = lambda: writer.frames
        item.interrupted = lambda: attempt.failed(Failure.STOPPED)
        try:
            async with writer:
                outcome = await _bounded(attempt, left_s)
            return await relay.with_body(outcome)
        finally:
            relay.discard()

    def _attempt(self, item: WorkItem, relay: Relay | None) -> Attempt:
        limit_bytes = self._settings.dispatcher.max_answer_bytes
        return Attempt(
            item, pool=self._pool, relay=relay, bodies=self._bodies, limit_bytes=limit_bytes, clock=self._clock
        )


async def _bounded(attempt: Attempt, left_s: float) -> Outcome:
    """Call within the time that remains until the task's deadline."""
    if left_s <= 0:
        return attempt.failed(Failure.TIMEOUT)
    try:
        async with asyncio.timeout(left_s):
            return await attempt.call()
    except TimeoutError:
        return attempt.failed(Failure.TIMEOUT)
    except CallError as error:
        return attempt.failed(error.failure, error.detail, error.report)
