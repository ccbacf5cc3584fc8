"""Answers of the OpenAI API: an outcome as the upstream sent it, or an error in that API's form."""

from __future__ import annotations

from starlette.responses import Response

from core.clock import epoch_ms
from core.errors import HeadraceError
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from ingress.api.openai_error import error_body
from ingress.api.tasks.serialization import location
from ingress.http.errors import ApiProblem, problem_of
from ingress.http.responses import stored_response
from ingress.http.sse import MEDIA_TYPE
from ingress.read_model.task_lookup import result_body
from ingress.submission.submitter import Ticket
from ingress.waiting.blocking import WaitOutcome
from schemas import ids
from schemas.records import Result

JSON = "application/json"
TIMEOUTS = ("timeout", "start_timeout")
FINAL = {"x-should-retry": "false"}
"""On every error of an accepted task: it continues, or its retries have been made here. The SDKs send a request
again by themselves after 408, 409, 429 and every 5xx, which would be a second task; this header prevents that."""


def problem(problem: ApiProblem) -> Response:
    """Render an error of this dialect."""
    body = error_body(problem.status, problem.message, code=problem.code, param=problem.field)
    headers = dict(problem.headers)
    if problem.task_id is not None:
        headers["location"] = location(ids.parse(problem.task_id))
    return Response(body, status_code=problem.status, media_type=JSON, headers=headers)


def task_headers(ticket: Ticket) -> dict[str, str]:
    """Return the headers that name the task which answers."""
    return {"x-task-id": ticket.text, "location": location(ticket.id)}


async def blocking_answer(blobs: BlobStore, ticket: Ticket, ended: Result | WaitOutcome) -> Response:
    """Answer a blocking call."""
    response = no_answer(ticket, ended) if isinstance(ended, WaitOutcome) else await outcome(blobs, ended)
    response.headers.update(task_headers(ticket))
    return response


def no_answer(ticket: Ticket, ending: WaitOutcome) -> Response:
    """Answer without an outcome."""
    status, code, message = ending_words(ticket, ending)
    return _failed(status, code, message)


def ending_words(ticket: Ticket, ending: WaitOutcome) -> tuple[int, str, str]:
    """Return status, code and message for a wait that ended without an outcome."""
    show = f"GET {location(ticket.id)}"
    if ending is WaitOutcome.SHUTDOWN:
        message = f"this process is shutting down; task {ticket.text} continues, see {show}"
        return 503, "server_shutdown", message
    if overdue(ticket):
        return 504, "timeout", f"task {ticket.text} timed out"
    message = f"task {ticket.text} has no outcome yet; it continues, see {show}. Do not send it again"
    return 504, "wait_exceeded", message


def overdue(ticket: Ticket) -> bool:
    """Return whether the task's own time-out is over, not only the wait."""
    return ticket.deadline_ms <= epoch_ms()


async def outcome(blobs: BlobStore, result: Result) -> Response:
    """Answer with an outcome: status, body and type of the upstream where it has answered."""
    done = result["state"] == "completed"
    try:
        if result["body_ref"] is not None and (done or not _is_stream(result)):
            return await stored_response(
                blobs,
                result["body_ref"],
                status=result["status_code"],
                content_type=result["content_type"] or JSON,
                headers=None if done else FINAL,
            )
        body = await result_body(blobs, result)
    except (BlobMissing, BlobCorrupt) as error:
        return _failed(500, error.code, f"the answer was too large for a record and is lost: {error}")
    except HeadraceError as error:  # the store does not answer
        response = problem(problem_of(error))
        response.headers.update(FINAL)
        return response
    # What was cut off in the middle of a stream is no answer: the pieces of one are no error body either.
    if not done and (body is None or _is_stream(result)):
        return _unanswered(result)
    # Raw headers: a media type is passed on as it came, and Starlette would add a charset to text.
    response = Response(body or b"", status_code=result["status_code"], headers=None if done else FINAL)
    response.headers["content-type"] = result["content_type"] or JSON
    return response


def _is_stream(result: Result) -> bool:
    return result["content_type"].startswith(MEDIA_TYPE)


def _unanswered(result: Result) -> Response:
    code = result["error_code"]
    message = result["error_message"] or f"the task ended as {result['state']}"
    # 408 means that the client was too slow to send; a time-out behind this server is a 504.
    return _failed(504 if code in TIMEOUTS else result["status_code"], code, message)


def _failed(status: int, code: str | None, message: str) -> Response:
    return Response(error_body(status, message, code=code), status_code=status, media_type=JSON, headers=FINAL)
