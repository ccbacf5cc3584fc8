"""What a request asks the simulator to do: the member `sim` of its body, or its model name."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, ValidationError


class Fault(StrEnum):
    """Ways to misbehave."""

    HANG = "hang"
    RESET = "reset"
    RESET_AFTER_HEADERS = "reset_after_headers"
    HALF_BODY = "half_body"
    LENGTH_SHORT = "length_short"
    LENGTH_LONG = "length_long"
    INVALID_JSON = "invalid_json"
    NON_UTF8 = "non_utf8"
    ENDLESS = "endless"
    NO_DONE = "no_done"
    CUT = "cut"
    ERROR_FRAME = "error_frame"
    SLOW_LORIS = "slow_loris"
    REDIRECT = "redirect"


class Behaviour(BaseModel):
    """How one request is answered; the default is a correct answer at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms: NonNegativeFloat = 0.0
    """Wait before the status line."""
    tokens: int = Field(default=8, ge=1)
    """Words of the answer; one frame each when it is streamed."""
    token_ms: NonNegativeFloat = 0.0
    """Time per word: between the frames of a stream, in one wait before a plain answer."""
    status: int = Field(default=200, ge=200, le=599)
    """HTTP status; 400 and above come with an error body."""
    retry_after: float | str | None = None
    """The Retry-After header of a status of 300 and above: seconds, or any text such as an HTTP date."""
    fail_times: NonNegativeInt = 0
    """Only so many first arrivals of the key fail (with `fault`, else `status`, else 503); later ones succeed."""
    key: str | None = None
    """What arrivals are counted by; default: the header x-task-id."""
    fault: Fault | None = None
    """A way to misbehave."""
    after: NonNegativeInt = 2
    """Good frames before a stream's fault."""
    byte_ms: PositiveFloat = 100.0
    """Time per byte of `slow_loris`."""
    size: NonNegativeInt = 0
    """Least size in bytes of a JSON answer (of all frames together): a member `padding` fills it up."""
    location: str | None = None
    """Target of `redirect`; default: the very same address."""
    message: dict[str, Any] | None = None
    """Members to put into the chat message (or the first delta) as they are, such as tool_calls."""

    @property
    def instant(self) -> bool:
        """Whether the answer needs no waiting and no misbehaving."""
        return self.fault is None and not self.latency_ms and not self.token_ms

    def at_arrival(self, count: int) -> Behaviour:
        """Give what the count-th arrival of the same key gets."""
        if not self.fail_times:
            return self
        if count > self.fail_times:
            return self.model_copy(update={"status": 200, "fault": None})
        if self.fault is None and self.status == 200:
            return self.model_copy(update={"status": 503})
        return self


INSTANT = Behaviour()
PRESETS: dict[str, Behaviour] = {
    "sim-instant": INSTANT,
    "sim-fast": Behaviour(latency_ms=20, tokens=16, token_ms=2),
    "sim-slow": Behaviour(latency_ms=1000, tokens=50, token_ms=20),
    "sim-huge": Behaviour(size=1 << 30),
} | {f"sim-{fault.value.replace('_', '-')}": Behaviour(fault=fault) for fault in Fault}
_NUMBERED = re.compile(r"(latency|tokens|token|status|size|fail)-(\d+)(?:-|$)")
_MEMBERS = {"latency": "latency_ms", "token": "token_ms", "fail": "fail_times"}


class UnknownBehaviourError(ValueError):
    """The request asks for a behaviour that the simulator does not have."""

    def __init__(self, message: str, *, param: str, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@lru_cache(maxsize=4096)
def of_model(model: str) -> Behaviour | None:
    """Read a model name: a preset or pairs such as `sim-latency-250-status-503`; None for names of other models."""
    if not model.startswith("sim-"):
        return None
    if model in PRESETS:
        return PRESETS[model]
    rest, members = model.removeprefix("sim-"), {}
    while match := _NUMBERED.match(rest):
        members[_MEMBERS.get(match[1], match[1])] = int(match[2])
        rest = rest[match.end() :]
    if rest or not members:
        raise UnknownBehaviourError(f"The model `{model}` does not exist.", param="model", status=404)
    return of_members(members, param="model")


def of_members(members: object, *, param: str = "sim") -> Behaviour:
    """Check the member `sim` of a request."""
    try:
        return Behaviour.model_validate(members)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([param, *map(str, first["loc"])])
        raise UnknownBehaviourError(f"{name}: {first['msg']}.", param=name) from error
