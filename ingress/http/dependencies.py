"""Dependencies of the routes: the services of the application, and the caller with the scope that a route needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from ingress.auth.keys import Caller
from ingress.runtime import Services

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
        return services_of(request).keys.caller(request, scope)  # type: ignore[arg-type]  # one of Scope, below


class PerApp(Generic[T]):
    """A dependency: an object that is made once for each application, from its services."""

    def __init__(self, make: Callable[[Services], T]) -> None:
        self._make = make
        self._name = f"{make.__module__}.{make.__qualname__}"

    def of(self, request: Request) -> T:
        """Return the object of the application that serves a request."""
        made: dict[str, Any] = request.app.state.made
        if self._name not in made:
            made[self._name] = self._make(services_of(request))
        found: T = made[self._name]
        return found

    async def __call__(self, request: Request) -> T:
        """Return the object, as a dependency."""
        return self.of(request)


def services_of(request: Request) -> Services:
    """Return the services of the application that serves a request."""
    services: Services = request.app.state.services
    return services


async def _services(request: Request) -> Services:
    return services_of(request)


API_KEY = ApiKey()
AppServices = Annotated[Services, Depends(_services)]
SubmitCaller = Annotated[Caller, Security(API_KEY, scopes=["submit"])]
ReadCaller = Annotated[Caller, Security(API_KEY, scopes=["read"])]
AdminCaller = Annotated[Caller, Security(API_KEY, scopes=["admin"])]
SUBMITS = Security(API_KEY, scopes=["submit"])
READS = Security(API_KEY, scopes=["read"])
