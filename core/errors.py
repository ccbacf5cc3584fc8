"""All errors of Headrace, as one tree.

HeadraceError
├── ConfigError             a setting is wrong
├── RequestError            a caller's mistake; carries the HTTP status, a code and the field
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
│   └── TooMany             429
├── Unavailable             503: Kafka cannot take the write now, or the process is full
│   └── Unconfirmed         503: a write was sent and its acknowledgement never came
└── FatalError              the process must end, so that its supervisor starts it anew
    ├── DeliveryFailed      a record of a durable batch was not acknowledged
    └── Frozen              the process slept longer than its Kafka session lasts

The docstring of a class is what an operator reads when nothing better is known.
"""

from __future__ import annotations

from typing import Self


class HeadraceError(Exception):
    """Something went wrong in Headrace."""

    http_status = 500
    code = "internal_error"
    retriable = False
    task_id: str | None = None
    """The task that it is about, where there is one already."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])

    def about(self, task_id: str | None) -> Self:
        """Name the task that it is about."""
        self.task_id = task_id
        return self

    @property
    def message(self) -> str:
        """Return the sentence for people."""
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
    """The API key may not do this."""

    http_status = 403
    code = "forbidden"


class NotFound(RequestError):
    """There is no such thing, or it belongs to somebody else."""

    http_status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No upstream serves this model."""

    code = "model_not_found"


class Gone(RequestError):
    """It was there, and is not kept any more."""

    http_status = 410
    code = "gone"


class TooLarge(RequestError):
    """The body is larger than the limit."""

    http_status = 413
    code = "too_large"


class UnsupportedType(RequestError):
    """The body is of a type that this route does not take."""

    http_status = 415
    code = "unsupported_media_type"


class IdempotencyConflict(RequestError):
    """The Idempotency-Key was used for another request."""

    http_status = 422
    code = "idempotency_conflict"


class TooMany(RequestError):
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


class Unconfirmed(Unavailable):
    """Kafka did not confirm the write in time; it is not known whether it was made."""

    code = "unconfirmed"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 2, task_id: str | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.task_id = task_id


class FatalError(HeadraceError):
    """The process cannot go on and must be started anew."""


class DeliveryFailed(FatalError):
    """A record was not acknowledged by Kafka; the batch is read again after the restart."""


class Frozen(FatalError):
    """The process slept longer than its Kafka session; another may own its partitions."""
