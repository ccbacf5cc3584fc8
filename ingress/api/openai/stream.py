"""Streamed calls of the OpenAI API: the upstream's frames, comments while it is silent, [DONE] or an error frame.

No `id:` and no `retry:` lines: the SDKs remember an id, and some take the next empty line for an event then.
"""

from __future__ import annotations

from typing import ClassVar

from starlette.responses import Response

from ingress.api.openai.responses import ending_words, no_answer, outcome, task_headers
from ingress.api.openai_error import error_frame
from ingress.http import sse
from ingress.http.event_stream import EventStream
from ingress.runtime import Ingress
from ingress.submission.service import PreparedTask, TaskSubmission
from ingress.submission.submitter import Ticket
from ingress.waiting.blocking import WaitOutcome
from ingress.waiting.streaming import StreamError

DONE = sse.frame(sse.DONE)


class OpenAIStream(EventStream):
    """One client's stream."""

    cancels_on_timeout: ClassVar[bool] = False  # the wait is over; the task continues, as that of a blocking call

    def __init__(
        self,
        ingress: Ingress,
        submission: TaskSubmission,
        prepared: PreparedTask,
        *,
        endpoint: str,
        hold_s: float | None,
    ) -> None:
        super().__init__(ingress, submission, prepared, hold_s=hold_s)
        self.route = endpoint
        self.answered_by(prepared.ticket)

    def answered_by(self, ticket: Ticket) -> None:
        """Set the headers of the task that answers."""
        self.headers.update(task_headers(ticket))

    async def plain_response(self, ending: WaitOutcome | None, failure: StreamError | None) -> Response | None:
        """Answer as a blocking call while no frame was sent: a refused request has its status and body."""
        if ending is not None:
            response = no_answer(self._ticket, ending)
        elif failure is not None and failure.result is not None:
            response = await outcome(self._ingress.blobs, failure.result)
        else:
            return None
        response.headers.update(task_headers(self._ticket))
        return response

    def final_frames(self, ending: WaitOutcome | None, failure: StreamError | None, *, error_sent: bool) -> bytes:
        """Return [DONE], an error frame, or nothing after the upstream's own."""
        if ending is not None:
            _, code, message = ending_words(self._ticket, ending)
            failure = StreamError(message, "server_error", code)
        if failure is None:
            return DONE
        if error_sent:
            return b""
        payload = error_frame(failure.result, message=failure.message, kind=failure.type, code=failure.code)
        return sse.frame(payload)
