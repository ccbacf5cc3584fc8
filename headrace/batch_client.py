"""Batches over HTTP, as anybody's program would use them; for the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from core.errors import HeadraceError

TIMEOUT = httpx.Timeout(60, connect=5)
PATIENCE_S = 120.0
"""How long a wait outlives an ingress that does not answer: a restart takes seconds, and the batch goes on."""
AGAIN_S = 1.0
SOON_S, LATE_S = 0.3, 5.0
PAGE = 100
ENDED = ("completed", "failed", "expired", "cancelled")

Batch = dict[str, Any]


class ApiError(HeadraceError):
    """The API has refused the request."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class BatchClient:
    """One API under one key; every method raises ApiError with a sentence for people."""

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}", "x-headrace-dialect": "openai"}
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=TIMEOUT, transport=transport)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise ApiError(f"{url!r} is no URL that can be called: {error}") from None

    def close(self) -> None:
        """Disconnect."""
        self._http.close()

    def upload(self, path: Path) -> str:
        """Send a file and return its id; it is read as it is sent."""
        try:
            with path.open("rb") as file:
                form = {"file": (path.name, file, "application/jsonl")}
                answer = self._call("POST", "/v1/files", files=form, data={"purpose": "batch"})
        except OSError as error:
            raise ApiError(f"{path} cannot be read: {error.strerror}") from None
        return str(answer.json()["id"])

    def create(self, wanted: dict[str, Any], *, queue: str | None) -> Batch:
        """Create a batch."""
        headers = {"x-headrace-queue": queue} if queue else {}
        return self._read(self._call("POST", "/v1/batches", json=wanted, headers=headers))

    def get(self, batch_id: str) -> Batch:
        """Return a batch as it stands."""
        return self._read(self._call("GET", _path(batch_id)))

    def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch."""
        return self._read(self._call("POST", f"{_path(batch_id)}/cancel"))

    def list(self, limit: int) -> Iterator[Batch]:
        """Yield the newest batches, as many pages as it takes."""
        query: dict[str, Any] = {}
        while limit > 0:
            page = self._call("GET", "/v1/batches", params={**query, "limit": min(limit, PAGE)}).json()
            yield from page["data"]
            limit -= len(page["data"])
            if not page["has_more"]:
                return
            query = {"after": page["last_id"]}

    def follow(self, batch_id: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Batch]:
        """Yield a batch again and again until it has ended; an ingress that is away is waited for."""
        began = answered = time.monotonic()
        while True:
            try:
                batch = self.get(batch_id)
            except ApiError as error:
                if not error.retriable or time.monotonic() - answered > PATIENCE_S:
                    raise
                sleep(AGAIN_S)
                continue
            answered = time.monotonic()
            yield batch
            if batch["status"] in ENDED:
                return
            sleep(min(LATE_S, max(SOON_S, (answered - began) / 60)))

    def download(self, batch_id: str, *, errors: bool, out: BinaryIO) -> int:
        """Write the answers that are there by now; returns how many bytes they are."""
        size = 0
        with self._sent(), self._http.stream("GET", f"{_path(batch_id)}/{'errors' if errors else 'output'}") as answer:
            if answer.is_error:
                answer.read()
                self._check(answer)
            for piece in answer.iter_bytes():
                out.write(piece)
                size += len(piece)
        return size

    def _call(self, method: str, path: str, **given: Any) -> httpx.Response:
        with self._sent():
            answer = self._http.request(method, path, **given)
        self._check(answer)
        return answer

    @contextmanager
    def _sent(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise ApiError(f"{self._url} does not answer in time", retriable=True) from None
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise ApiError(
                f"{self._url} cannot be reached: {why}. Is `headrace up` running, and is --url (HEADRACE_URL) right?",
                retriable=isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol),
            ) from None

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        if answer.status_code == 401:
            raise ApiError(f"{self._url} does not know this API key; give --api-key or HEADRACE_API_KEY")
        retriable = answer.status_code in (429, 502, 503, 504)
        raise ApiError(_said(answer) or f"{self._url} answered {answer.status_code}", retriable=retriable)

    def _read(self, answer: httpx.Response) -> Batch:
        try:
            batch: Batch = answer.json()
        except ValueError:
            raise ApiError(f"{self._url} does not speak this API: its answer is no JSON") from None
        return batch


def _path(batch_id: str) -> str:
    """Return the path of a batch; what is no id would be another path."""
    if not batch_id.replace("_", "").replace("-", "").isalnum():
        raise ApiError(f"{batch_id!r} is no batch id")
    return f"/v1/batches/{batch_id}"


def _said(answer: httpx.Response) -> str | None:
    """Return the sentence of an error body."""
    try:
        body = answer.json()
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
