"""Dependencies of the routes: the ingress of the application, and the caller with the scope that a route needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Path, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from ingress.auth.keys import Caller
from ingress.connected import Connected
from ingress.runtime import Ingress

KEYS = (
    "An API key. It belongs to a tenant, which sees its own tasks only, and has scopes: submit (put, cancel, and what "
    "a worker does), read, admin."
)
T = TypeVar("T")


class ApiKey(SecurityBase):
    """The bearer key of a request and the scope that its route needs."""

    def __init__(self) -> None:
        self.scheme_name = "key"
        self.model = HTTPBearer(description=KEYS)

    async def __call__(self, request: Request, needed: SecurityScopes) -> Caller:
        """Return the caller; raises Unauthorized, Forbidden, and InvalidRequest for an unknown header of ours."""
        [scope] = needed.scopes
        return ingress_of(request).keys.caller(request, scope)  # type: ignore[arg-type]  # one of Scope, below


class PerApp(Generic[T]):
    """A dependency: an object that is made once for each application, from its ingress."""

    def __init__(self, make: Callable[[Ingress], T]) -> None:
        self._make = make
        self._name = f"{make.__module__}.{make.__qualname__}"

    def of(self, request: Request) -> T:
        """Return the object of the application that serves a request."""
        made: dict[str, Any] = request.app.state.made
        if self._name not in made:
            made[self._name] = self._make(ingress_of(request))
        found: T = made[self._name]
        return found

    async def __call__(self, request: Request) -> T:
        """Return the object, as a dependency."""
        return self.of(request)


def ingress_of(request: Request) -> Ingress:
    """Return the ingress that serves a request."""
    ingress: Ingress = request.app.state.ingress
    return ingress


async def _ingress(request: Request) -> Ingress:
    return ingress_of(request)


async def _connected(request: Request) -> Connected:
    return ingress_of(request).connected()


API_KEY = ApiKey()
AppIngress = Annotated[Ingress, Depends(_ingress)]
AppConnected = Annotated[Connected, Depends(_connected)]
"""The parts that need Kafka; the request is refused with 503 until Kafka has been reached."""
SUBMITS = Security(API_KEY, scopes=["submit"])
"""For routes without dependencies of their own: declares the scope in the document."""
SubmitCaller = Annotated[Caller, Security(API_KEY, scopes=["submit"])]
ReadCaller = Annotated[Caller, Security(API_KEY, scopes=["read"])]
AdminCaller = Annotated[Caller, Security(API_KEY, scopes=["admin"])]


async def _limited(request: Request, caller: SubmitCaller, ingress: AppIngress) -> Caller:
    ingress.limits.submit(caller, request.scope)
    return caller


LimitedCaller = Annotated[Caller, Depends(_limited)]
"""A caller with the scope submit whose request counts against the rate limit of its key."""
TaskIdPath = Annotated[str, Path(description="The id in any rendering: TASK-…, task_…, req_…, batch_req_… or a UUID.")]
