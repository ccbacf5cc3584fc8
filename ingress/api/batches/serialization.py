"""Batches as their clients see them, in SiliconFlow's dialect or in OpenAI's. Pure."""

from __future__ import annotations

from typing import Any, Literal

from core.errors import InvalidRequest
from ingress.batches.request import model_of
from schemas.batches import BATCH_ENDED, Batch, BatchState, output_file_id, segments_of
from schemas.common import BatchError

Dialect = Literal["siliconflow", "openai"]
DIALECTS: tuple[Dialect, ...] = ("siliconflow", "openai")


def batch_object(batch: Batch, dialect: Dialect) -> dict[str, Any]:
    """Build the batch object; an output or error file that will never have a line is null."""
    ours = dialect == "siliconflow"
    waits = ours and batch["state"] == "validating"
    return {
        "id": batch["id"],
        "object": "batch",
        "endpoint": batch["endpoint"],
        "model": model_of(batch["replace"]),
        "errors": _errors(batch["errors"], ours=ours),
        "input_file_id": batch["input_file_id"],
        "completion_window": batch["completion_window"],
        "status": _status(batch["state"], ours=ours),
        "output_file_id": _file_id(batch, errors=False),
        "error_file_id": _file_id(batch, errors=True),
        "created_at": batch["created_ms"] // 1000,
        "in_progress_at": _seconds(batch["in_progress_ms"]),
        "expires_at": batch["expires_ms"] // 1000,
        "finalizing_at": _seconds(batch["finalizing_ms"]),
        "completed_at": _seconds(batch["completed_ms"]),
        "failed_at": _seconds(batch["failed_ms"]),
        "expired_at": _seconds(batch["expired_ms"]),
        "cancelling_at": _seconds(batch["cancelling_ms"]),
        "cancelled_at": _seconds(batch["cancelled_ms"]),
        "request_counts": None
        if waits
        else {"total": batch["total"], "completed": batch["completed"], "failed": batch["failed"]},
        "usage": None if waits else _usage(batch),
        "metadata": batch["metadata"] or None,
    }


def list_object(page: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Build a page of a list."""
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": has_more,
    }


def page_start(after: str | None, ids: list[str]) -> int:
    """Return where a page of a list starts; raises InvalidRequest when the caller has no such id."""
    if not after:
        return 0
    try:
        return ids.index(after) + 1
    except ValueError:
        raise InvalidRequest(f"after names nothing of this list: {after[:80]}", field="after") from None


def _status(state: BatchState, *, ours: bool) -> str:
    return "in_queue" if ours and state == "validating" else state


def _errors(errors: list[BatchError], *, ours: bool) -> Any:
    if not errors:
        return None
    if ours:
        return [_sentence(error) for error in errors]
    return {"object": "list", "data": [dict(error) for error in errors]}


def _sentence(error: BatchError) -> str:
    """Render an error as one string, which is the form of this dialect."""
    where = "" if error["line"] is None else f"line {error['line']}: "
    return f"{where}{error['code']}: {error['message']}"


def _file_id(batch: Batch, *, errors: bool) -> str | None:
    if batch["state"] in BATCH_ENDED and not segments_of(batch, errors=errors):
        return None
    return output_file_id(batch["id"], errors=errors)


def _usage(batch: Batch) -> dict[str, Any]:
    used = batch["usage"]
    return {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used["total_tokens"],
    }


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
