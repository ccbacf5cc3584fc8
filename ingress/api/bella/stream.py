"""Streaming mode of put: plain `data:` frames as the upstream's own, then an error frame or [DONE] at the end."""

from __future__ import annotations

from ingress.api.openai_error import error_frame
from ingress.http import sse
from ingress.http.event_stream import EventStream
from ingress.waiting.blocking import WaitOutcome
from ingress.waiting.streaming import StreamError

DONE = sse.frame(sse.DONE)
ENDED = {
    WaitOutcome.TIMEOUT: StreamError("the task timed out and was cancelled", "server_error", "timeout"),
    WaitOutcome.SHUTDOWN: StreamError(
        "this process is shutting down; the task goes on, fetch it with GET /v1/queue/{task_id}",
        "server_error",
        "server_shutdown",
    ),
}


class BellaStream(EventStream):
    """One client's stream."""

    route = "put"

    def final_frames(self, ending: WaitOutcome | None, failure: StreamError | None, *, error_sent: bool) -> bytes:
        """Return [DONE], an error frame, or nothing after the upstream's own."""
        failure = ENDED[ending] if ending else failure
        if failure is None:
            return DONE
        if error_sent:
            return b""
        payload = error_frame(failure.result, message=failure.message, kind=failure.type, code=failure.code)
        return sse.frame(payload)
