"""All errors of Headrace, as one tree.

HeadraceError
├── ConfigError             a setting is wrong
├── RequestError            an invalid request; carries the HTTP status, a code and the field
│   ├── InvalidRequest      400
│   ├── NotCancellable      400
│   ├── Unauthorized        401
│   ├── Forbidden           403
│   ├── NotFound            404
│   │   └── ModelNotFound
│   ├── Gone                410
│   ├── TooLarge            413
│   ├── UnsupportedType     415
│   ├── IdempotencyConflict 422
│   └── RateLimited         429
├── Unavailable             503: Kafka cannot take the write now, or the process is full
│   └── WriteUnconfirmed    503: a write was sent and its acknowledgement never came
└── FatalError              the process must end, so that its supervisor restarts it
    ├── DeliveryFailed      a record of a durable batch was not acknowledged
    └── SessionExpired      the process was suspended for longer than its Kafka session

The docstring of a class is its message when none is given.
"""

from __future__ import annotations

from typing import Self


class HeadraceError(Exception):
    """An error in Headrace."""

    http_status = 500
    code = "internal_error"
    retriable = False
    task_id: str | None = None
    """The id of the task that the error concerns, once there is one."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])

    def with_task(self, task_id: str | None) -> Self:
        """Attach the id of the task that the error concerns."""
        self.task_id = task_id
        return self

    @property
    def message(self) -> str:
        """Return the human-readable message."""
        return str(self)


class ConfigError(HeadraceError):
    """A setting is missing or wrong."""

    code = "config_error"


class RequestError(HeadraceError):
    """The request cannot be served as it is."""

    http_status = 400
    code = "invalid_request"

    def __init__(
        self, message: str | None = None, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidRequest(RequestError):
    """The request is malformed."""


class NotCancellable(RequestError):
    """The task has ended already."""

    code = "task_not_cancellable"


class Unauthorized(RequestError):
    """The API key is missing or wrong."""

    http_status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    """The API key does not have the required scope."""

    http_status = 403
    code = "forbidden"


class NotFound(RequestError):
    """Not found, or owned by another tenant."""

    http_status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No upstream serves this model."""

    code = "model_not_found"


class Gone(RequestError):
    """Expired: no longer retained."""

    http_status = 410
    code = "gone"


class TooLarge(RequestError):
    """The body is larger than the limit."""

    http_status = 413
    code = "too_large"


class UnsupportedType(RequestError):
    """The content type is not supported by this route."""

    http_status = 415
    code = "unsupported_media_type"


class IdempotencyConflict(RequestError):
    """The Idempotency-Key was used for another request."""

    http_status = 422
    code = "idempotency_conflict"


class RateLimited(RequestError):
    """Too many requests; try again later."""

    http_status = 429
    code = "too_many_requests"
    retriable = True


class Unavailable(HeadraceError):
    """Kafka cannot be reached now; nothing was accepted, try again in some seconds."""

    http_status = 503
    code = "unavailable"
    retriable = True

    def __init__(self, message: str | None = None, *, retry_after_s: float = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WriteUnconfirmed(Unavailable):
    """Kafka did not acknowledge the write in time; it may or may not have been written."""

    code = "unconfirmed"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 2, task_id: str | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.task_id = task_id


class FatalError(HeadraceError):
    """The process cannot continue and must be restarted."""


class DeliveryFailed(FatalError):
    """Kafka did not acknowledge a record; the batch is processed again after the restart."""


class SessionExpired(FatalError):
    """The process was suspended for longer than its Kafka session; another process may own its partitions."""
