"""Streaming mode of completion-messages: the upstream's deltas as message events, then message_end or error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from core.lenient_json import ends_in_half
from core.settings.models import ModelSettings
from ingress.api.dify import serialization
from ingress.api.dify.prices import usage_object
from ingress.http.errors import ApiProblem
from ingress.http.event_stream import EventStream
from ingress.runtime import Ingress
from ingress.submission.service import PreparedTask, TaskSubmission
from ingress.waiting.blocking import WaitOutcome
from ingress.waiting.streaming import StreamError
from schemas.common import Usage

PING = b"event: ping\n\n"
ENDED = {
    WaitOutcome.TIMEOUT: ApiProblem(400, serialization.FAILED, "the task timed out and was cancelled"),
    WaitOutcome.SHUTDOWN: ApiProblem(
        500, "internal_server_error", "this process is shutting down; the task continues, but its stream ends here"
    ),
}


class CompletionStream(EventStream):
    """One client's stream."""

    route = "completion-messages"
    keep_alive: ClassVar[bytes] = PING

    def __init__(
        self,
        ingress: Ingress,
        submission: TaskSubmission,
        prepared: PreparedTask,
        *,
        prices: ModelSettings | None,
        prompt_tokens: int,
    ) -> None:
        """Take the prices, and an estimate of the prompt's tokens in case the upstream does not count them."""
        super().__init__(ingress, submission, prepared)
        self._started_s = self._last_sent_s = time.monotonic()
        self._prices = prices
        self._prompt_tokens = prompt_tokens
        self._pieces = 0
        self._half = ""
        """The first half of a character whose other half comes with the next piece."""
        self._usage: Usage | None = None
        self._error: Mapping[str, Any] | None = None

    @property
    def _message(self) -> serialization.Message:
        return serialization.Message.of(self._ticket.id)  # not stored: a duplicate streams the original

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        """Return message events for what has text; a model that thinks for long without a word is pinged over."""
        frames = []
        for part in filter(None, map(serialization.read_part, payloads)):
            self._usage = part.usage or self._usage
            self._error = part.error or self._error
            text = self._half + part.text
            self._half = text[-1:] if ends_in_half(text) else ""
            if text := text.removesuffix(self._half):
                self._pieces += 1
                frames.append(self._message.piece(text))
        now = time.monotonic()
        if not frames and now - self._last_sent_s >= self.silence_s():
            frames.append(self.keep_alive)
        if frames:
            self._last_sent_s = now
        return b"".join(frames)

    def final_frames(self, ending: WaitOutcome | None, failure: StreamError | None, *, error_sent: bool) -> bytes:  # noqa: ARG002
        """Return message_end, also after a stop, or the error; before it what is left of a character that was cut."""
        rest = self._message.piece(self._half) if self._half else b""
        return rest + self._end(ending, failure)

    def _end(self, ending: WaitOutcome | None, failure: StreamError | None) -> bytes:
        if ending is not None:
            return self._message.error(ENDED[ending])
        if failure is not None and failure.code != "cancelled":
            body = failure.result["body"] if failure.result is not None else None
            error = self._error or serialization.error_of(body)
            return self._message.error(serialization.failed(failure.result, error, failure.message))
        if self._error is not None:  # an upstream that answered 200 with an error as its only chunk
            return self._message.error(serialization.failed(None, self._error, "the upstream reported an error"))
        # Streams give a token in a piece, so the pieces are the best count of what was stopped.
        counts = self._usage or {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._pieces,
            "total_tokens": self._prompt_tokens + self._pieces,
        }
        return self._message.end(usage_object(counts, self._prices, latency_s=time.monotonic() - self._started_s))
