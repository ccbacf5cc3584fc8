"""HTTP clients of the commands: the admin API, and the files and batches API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from core.errors import HeadraceError

TIMEOUT = httpx.Timeout(90, connect=5)
"""Longer than the longest wait that a route allows."""
PAGE = 100
MAX_OUTAGE_S = 120.0
"""How long `follow` retries an ingress that does not answer: a restart takes seconds, and the batch continues."""
RETRY_DELAY_S = 1.0
MIN_POLL_S, MAX_POLL_S = 0.3, 5.0
ENDED = ("completed", "failed", "expired", "cancelled")

Batch = dict[str, Any]


class ApiError(HeadraceError):
    """The API has rejected the request."""

    def __init__(self, message: str | None = None, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class Unreachable(ApiError):
    """The ingress does not answer."""


class AdminClient:
    """The admin API of one ingress, with a key that has the scope admin."""

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url, self._http = _connected(url, key, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """Send a GET request and return the decoded body; parameters that are None are left out."""
        return self._call("GET", path, params={k: str(v) for k, v in query.items() if v is not None})

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """Send a POST request and return the decoded body."""
        return self._call("POST", path, json=_without_none(body))

    def patch(self, path: str, body: Mapping[str, object]) -> Any:
        """Send a PATCH request and return the decoded body."""
        return self._call("PATCH", path, json=_without_none(body))

    def pages(self, path: str, *, most: int, **query: object) -> Iterator[dict[str, Any]]:
        """Yield up to `most` entries of a list, page by page."""
        after, left = None, most
        while left > 0:
            page = self.get(path, after=after, limit=min(left, PAGE), **query)
            yield from page["data"]
            left -= len(page["data"])
            after = page["next_cursor"]
            if after is None:
                return

    def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = self._http.request(method, f"/v1/admin/{path}", **request)
        except httpx.TransportError as error:
            raise Unreachable(
                f"the ingress at {self._url} does not answer: {str(error) or type(error).__name__}"
            ) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ApiError(f"{self._url!r} is not a valid URL: {error}") from None
        if response.is_success:
            return response.json()
        host = response.url.host
        raise ApiError(_error_message(response) or f"{host} answered {response.status_code}; is it a Headrace ingress?")


def path_segment(text: str) -> str:
    """Escape a name for use as one segment of a path."""
    return quote(text, safe="")


class BatchClient:
    """The files and batches of one tenant, in OpenAI's dialect; every method raises ApiError."""

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self._url, self._http = _connected(url, key, transport, dialect="openai")

    def close(self) -> None:
        """Disconnect."""
        self._http.close()

    def upload(self, path: Path) -> str:
        """Upload a file and return its id; it is streamed."""
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
        """Return the current state of a batch."""
        return self._read(self._call("GET", _path(batch_id)))

    def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch."""
        return self._read(self._call("POST", f"{_path(batch_id)}/cancel"))

    def list(self, limit: int) -> Iterator[Batch]:
        """Yield the newest batches, page by page."""
        query: dict[str, Any] = {}
        while limit > 0:
            page = self._call("GET", "/v1/batches", params={**query, "limit": min(limit, PAGE)}).json()
            yield from page["data"]
            limit -= len(page["data"])
            if not page["has_more"]:
                return
            query = {"after": page["last_id"]}

    def follow(self, batch_id: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Batch]:
        """Poll a batch until it has ended and yield each state; outages of up to MAX_OUTAGE_S are retried."""
        began = answered = time.monotonic()
        while True:
            try:
                batch = self.get(batch_id)
            except ApiError as error:
                if not error.retriable or time.monotonic() - answered > MAX_OUTAGE_S:
                    raise
                sleep(RETRY_DELAY_S)
                continue
            answered = time.monotonic()
            yield batch
            if batch["status"] in ENDED:
                return
            sleep(min(MAX_POLL_S, max(MIN_POLL_S, (answered - began) / 60)))

    def download(self, batch_id: str, *, errors: bool, out: BinaryIO) -> int:
        """Write the results that are available so far; returns their size in bytes."""
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
        raise ApiError(_error_message(answer) or f"{self._url} answered {answer.status_code}", retriable=retriable)

    def _read(self, answer: httpx.Response) -> Batch:
        try:
            batch: Batch = answer.json()
        except ValueError:
            raise ApiError(f"{self._url} is not this API: its response is not JSON") from None
        return batch


def _path(batch_id: str) -> str:
    """Return the path of a batch; raises ApiError for text that is not an id."""
    if not batch_id.replace("_", "").replace("-", "").isalnum():
        raise ApiError(f"{batch_id!r} is not a batch id")
    return f"/v1/batches/{batch_id}"


def _connected(
    url: str, key: str, transport: httpx.BaseTransport | None, *, dialect: str | None = None
) -> tuple[str, httpx.Client]:
    """Return the base URL without /v1, and a client for it; raises ApiError for an invalid URL."""
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"authorization": f"Bearer {key}"} | ({"x-headrace-dialect": dialect} if dialect else {})
    try:
        return base, httpx.Client(base_url=base, headers=headers, timeout=TIMEOUT, transport=transport)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ApiError(f"{url!r} is not a valid URL: {error}") from None


def _without_none(body: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _error_message(response: httpx.Response) -> str | None:
    """Return the message of an error body; None when it has another form."""
    try:
        body = response.json()
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
