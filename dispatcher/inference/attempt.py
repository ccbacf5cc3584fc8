"""One attempt: which upstream was called and how far it came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from core.clock import Clock
from core.observability.tracing import tracer
from core.retry_after import retry_after_s
from core.upstream_errors import reason_in
from dispatcher.inference import tracing
from dispatcher.inference.bodies import BodyStore, RequestBody
from dispatcher.inference.outcome import Failure, Report, answered, failed
from dispatcher.inference.response_check import checked
from dispatcher.inference.stream_detection import peeked
from dispatcher.inference.stream_relay import Relay
from dispatcher.inference.upstream import CallError, Upstream
from dispatcher.inference.upstream_pool import UpstreamPool
from dispatcher.inference.upstream_response import UpstreamResponse
from dispatcher.inference.work_item import WorkItem
from schemas.media_types import EVENT_STREAM, JSON, OCTET_STREAM
from schemas.records import Outcome


class Attempt:
    """Call an upstream for one item; what was relayed until a failure stays readable."""

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
        """`relay` passes a stream on; None for a call that does not stream."""
        self._item = item
        self._pool = pool
        self._relay = relay
        self._bodies = bodies
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._started_ms = clock()
        self._first_ms: int | None = None
        self._traceparent = item.traceparent
        self._upstream: str | None = None

    async def call(self) -> Outcome:
        """Return the answer's outcome; raises CallError.

        While no upstream can be reached it waits: nothing was sent, so that is no attempt.
        """
        body = self._bodies.request(self._item.work)
        while True:
            upstream = await self._pool.pick()
            self._upstream = upstream.base
            try:
                return await self._traced(upstream, body)
            except CallError as error:
                if error.failure is not Failure.UNREACHABLE:
                    raise body.failure or error from None
                self._pool.unreachable(upstream, error.detail)
            finally:
                self._pool.put_back(upstream)

    def failed(self, failure: Failure, detail: str = "", report: Report | None = None) -> Outcome:
        """Build the outcome of a failure, with what of a stream had been delivered by then."""
        outcome = failed(failure, started_ms=self._started_ms, upstream=self._upstream, detail=detail, report=report)
        if (relay := self._relay) is None:
            return outcome
        return relay.delivered(outcome)

    async def _traced(self, upstream: Upstream, body: RequestBody) -> Outcome:
        """Call within a span, whose context the upstream is given."""
        with tracer().span("call", "client", parent=self._item.traceparent) as span:
            self._traceparent = span.traceparent
            tracing.calling(span, self._item.work, upstream.base)
            try:
                outcome = await self._timed(upstream, body)
            except CallError as error:
                span.failed(error.failure.value.code)
                raise
            tracing.called(span, outcome)
            return outcome

    async def _timed(self, upstream: Upstream, body: RequestBody) -> Outcome:
        """Hold the call to its own clock, which does not run while no upstream can be reached."""
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
        async with upstream.post(self._item.work["endpoint"], content, self._headers(body.size)) as answer:
            if 300 <= answer.status < 400:
                raise CallError(Failure.REDIRECT, f"{answer.status} to {answer.header('location') or 'nowhere'}")
            content_type = answer.header("content-type") or ""
            pieces = answer.pieces()
            if self._relay is not None and answer.status < 300:
                is_stream, pieces = await peeked(pieces, content_type)
                if is_stream:
                    await self._relay.pump(pieces)
                    return await self._streamed(self._relay, answer.status)
                if content_type.lower().startswith(EVENT_STREAM):
                    content_type = JSON  # what it said was wrong
            return await self._kept(answer, pieces, upstream, content_type)

    async def _kept(
        self, answer: UpstreamResponse, pieces: AsyncIterator[bytes], upstream: Upstream, content_type: str
    ) -> Outcome:
        """Take an answer in, as a stream to the object store when it is large."""
        place = self._bodies.answer(self._item.work, media_type=content_type or OCTET_STREAM)
        try:
            async for data in pieces:
                self._first_ms = self._first_ms or self._clock()
                await place.take(data)
                self._check(place.size)
            kept = await place.finish()
        finally:
            place.drop()
        body = kept.body
        if answer.status < 300 and kept.body_ref is None:
            body = checked(answer.status, kept.body or b"", content_type)
        return answered(
            answer.status,
            body=body,
            body_ref=kept.body_ref,
            content_type=content_type,
            upstream=upstream.base,
            started_ms=self._started_ms,
            usage=kept.usage,
            first_token_ms=self._first_ms,
            retry_after=self._retry_after(answer, upstream),
            reason=reason_in(kept.body, content_type) if answer.status >= 300 else None,
        )

    def _headers(self, size: int) -> dict[str, str]:
        content_type = self._item.work["content_type"]
        headers = {
            "content-type": content_type,
            "content-length": str(size),  # known for a streamed body too: many model servers take no chunked ones
            # A form may ask for text, subtitles or JSON.
            "accept": EVENT_STREAM if self._relay is not None else JSON if content_type == JSON else "*/*",
            "x-task-id": self._item.work["id"],
        }
        if self._traceparent is not None:
            headers["traceparent"] = self._traceparent.decode("latin-1")
        return headers

    async def _streamed(self, relay: Relay, status: int) -> Outcome:
        text = await relay.finish()
        return answered(
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

    def _retry_after(self, answer: UpstreamResponse, upstream: Upstream) -> int | None:
        """Read Retry-After; from a busy upstream it holds for the whole pool."""
        wait_s = retry_after_s(answer.header("retry-after"), now_ms=self._clock())
        if wait_s is None:
            return None
        if answer.status in (429, 503):
            self._pool.leave_out(upstream, wait_s)
        return int(wait_s * 1000)

    def _check(self, size: int) -> None:
        if size > self._limit_bytes:
            raise CallError(Failure.TOO_LARGE, f"more than {self._limit_bytes} bytes")
