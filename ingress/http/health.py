"""/livez, /readyz and /metrics; open to everybody, for probes carry no key."""

from __future__ import annotations

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingress.http.readiness import Readiness
from ingress.runtime import Ingress

JSON = "application/json"


def routes(ingress: Ingress) -> list[Route]:
    """List the routes."""

    readiness = Readiness(ingress)

    async def livez(_: Request) -> Response:
        return Response(b'{"live":true}', media_type=JSON)

    async def readyz(_: Request) -> Response:
        missing = await readiness.missing()
        body = orjson.dumps({"ready": not missing, "missing": missing})
        return Response(body, status_code=503 if missing else 200, media_type=JSON)

    async def metrics(_: Request) -> Response:
        body = generate_latest(ingress.metrics.registry)
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})

    return [
        Route("/livez", livez, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
