"""Probes, metrics and the API documentation; open to everyone, for probes carry no key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

import orjson
from fastapi import Depends
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from core.asyncapi import document as asyncapi_document
from ingress.http.dependencies import AppIngress, PerApp
from ingress.http.readiness import Readiness
from ingress.http.routing import JSON, answer, api_router, error
from ingress.runtime import Ingress

ASSETS = "/docs/assets"
router = api_router("Health")


class Liveness(BaseModel):
    """That the process answers."""

    live: bool


class ReadinessReport(BaseModel):
    """Whether tasks can be processed, what is missing, and which topics need attention while all is ready."""

    ready: bool
    missing: list[str]
    warnings: list[str]


NOT_READY = {"ready": False, "missing": ["no heartbeat from a dispatcher in the last 10 s"], "warnings": []}


def _asyncapi(ingress: Ingress) -> bytes:
    """Render the description of the topics, without the broker's address: everyone may read it."""
    return orjson.dumps(asyncapi_document(ingress.settings))


@router.get(
    "/livez",
    operation_id="livez",
    summary="Does the process answer?",
    responses={200: answer("Yes.", Liveness, example={"live": True})},
)
async def livez() -> Response:
    """For the liveness probe of a supervisor; it does not check Kafka or the other roles."""
    return Response(b'{"live":true}', media_type=JSON)


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Does the whole path work, from here to a model?",
    responses={
        200: answer("Yes.", ReadinessReport, example={"ready": True, "missing": [], "warnings": []}),
        503: error("No; the answer lists what is missing.", NOT_READY),
    },
)
async def readyz(readiness: Annotated[Readiness, Depends(PerApp(Readiness))]) -> Response:
    """For the readiness probe of a load balancer: Kafka, the schedulers, a dispatcher and a model server answer."""
    missing = await readiness.missing()
    warnings = [] if missing else await readiness.warnings()
    body = orjson.dumps({"ready": not missing, "missing": missing, "warnings": warnings})
    return Response(body, status_code=503 if missing else 200, media_type=JSON)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics",
    responses={200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(ingress: AppIngress) -> Response:
    """Metrics of this process in the text format of Prometheus."""
    return Response(generate_latest(ingress.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})


@router.get("/openapi.json", include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """Return the document; it is generated once, in a thread, for it takes some tenths of a second."""
    return Response(await asyncio.to_thread(_rendered, request.app.openapi), media_type=JSON)


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Show the document with Swagger UI, whose files come from this process: no other network is needed."""
    return _page()


@router.get("/asyncapi.json", include_in_schema=False)
async def asyncapi(document: Annotated[bytes, Depends(PerApp(_asyncapi))]) -> Response:
    """Describe the topics, for clients that use Kafka directly."""
    return Response(document, media_type=JSON)


@cache
def _rendered(document: Callable[[], dict[str, Any]]) -> bytes:
    return orjson.dumps(document())


@cache
def _page() -> Response:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Headrace API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
        swagger_ui_parameters={
            "validatorUrl": None,  # of swagger.io
            "docExpansion": "none",
            "filter": True,
            "tryItOutEnabled": True,
        },
    )


router.routes.append(Mount(ASSETS, StaticFiles(directory=str(files("fastapi_offline") / "static")), name="docs_assets"))
