"""Request bodies of webhooks: {"status_code", "request_id", "body"}, from the result in memory or from the log."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from aiokafka import TopicPartition

from core.embedding import described
from core.errors import HeadraceError
from core.kafka.log_reader import LogReader
from core.kafka.task_records import result_of
from core.settings.loader import is_loopback
from core.settings.models import Settings
from core.storage.blobs import BlobCorrupt, BlobMissing, BlobStore
from schemas import ids, topics
from schemas.records import Delivery, Result

log = logging.getLogger(__name__)

EVENT_STATUS = {"start": 202, "progress": 202, "expired": 410}


def payload(result: Result, body: bytes | None) -> bytes:
    """Render a result; its body is embedded unchanged when it is JSON, text as a string, anything else in base64."""
    return orjson.dumps({"status_code": result["status_code"], "request_id": result["id"], **_body(result, body)})


def link_payload(result: Result, *, size: int, base: str) -> bytes:
    """Render a result that is too large to be posted: with the URL of the body instead of the body."""
    return orjson.dumps(
        {
            "status_code": result["status_code"],
            "request_id": result["id"],
            "body": None,
            "body_url": f"{base}/v1/queue/{result['id']}",
            "body_bytes": size,
        }
    )


def progress_payload(task_id: str, event: str, body: dict[str, Any]) -> bytes:
    """Render a notification of a task that has not ended; the member `event` distinguishes it from a result."""
    return orjson.dumps({"status_code": EVENT_STATUS[event], "request_id": task_id, "event": event, "body": body})


def _body(result: Result, body: bytes | None) -> dict[str, Any]:
    if not body:
        return {"body": _error(result) if result["error_code"] is not None else None}
    return described(body, result["content_type"], name="body", types="result")


def _error(result: Result) -> dict[str, dict[str, str | None]]:
    code = result["error_code"]
    message = result["error_message"] or f"the task ended as {result['state']}"
    kind = "invalid_request_error" if 400 <= result["status_code"] < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class ResultGone(HeadraceError):
    """The result is no longer retained, so it cannot be delivered."""

    code = "result_gone"


class DeliveryBodies:
    """Renders the body of a delivery; raises ResultGone, and Unavailable when a store is unavailable."""

    def __init__(self, settings: Settings, *, log_reader: LogReader, blobs: BlobStore) -> None:
        self._settings = settings
        self._blobs = blobs
        self._most = settings.webhooks.max_body_bytes
        self._base = settings.webhooks.public_url or _own_url(settings)
        self._log_reader = log_reader

    async def of(self, delivery: Delivery, result: Result | None) -> bytes:
        """Return the body."""
        if delivery["payload"] is not None:
            return delivery["payload"]
        result = result or await self._read(delivery)
        size = result["body_ref"]["size"] if result["body_ref"] else len(result["body"] or b"")
        if size > self._most:
            return link_payload(result, size=size, base=self._base)
        return payload(result, await self._body(result))

    async def _read(self, delivery: Delivery) -> Result:
        home = ids.partition_of(delivery["task_id"])
        tp = TopicPartition(self._settings.topic(topics.results(delivery["level"])), home)
        result = result_of(await self._log_reader.read(tp, delivery["result_offset"] or 0), delivery["task_id"])
        if result is None:
            raise ResultGone
        return result

    async def _body(self, result: Result) -> bytes | None:
        if result["body_ref"] is None:
            return result["body"]
        try:
            return await self._blobs.get(result["body_ref"])
        except (BlobMissing, BlobCorrupt) as error:
            log.error("%s", error.message, extra={"event": "webhook_body_missing", "task_id": result["id"]})
            return b'{"error":{"message":"the stored body is lost","type":"server_error","param":null,"code":"%b"}}' % (
                error.code.encode()
            )


def _own_url(settings: Settings) -> str:
    """Return the URL of an ingress on this machine; empty for any other, whose host the receiver knows."""
    host = settings.ingress.host.strip("[]")
    spelled = f"[{host}]" if ":" in host else host
    return f"http://{spelled}:{settings.ingress.port}" if is_loopback(host) else ""
