"""One route for a path with several methods: of two routes only the first would be named in the refusal of a third."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]


def route(path: str, **handlers: Handler) -> Route:
    """Return the route of a path; handlers by method, that of GET serves HEAD too."""

    async def serve(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, serve, methods=[*handlers])
