"""The OpenAPI document, by hand, for the hot path has no models to derive it from; tests hold it to the code.

Each door describes its own routes and bodies; here they are put together.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from ingress.api.admin import openapi as admin
from ingress.api.batches import openapi as batches
from ingress.api.bella import openapi as bella
from ingress.api.dify import openapi as dify
from ingress.api.files import openapi as files
from ingress.api.openai import media_openapi as media
from ingress.api.openai import openapi as openai
from ingress.api.openapi_common import completed
from ingress.api.registry import openapi as registry
from ingress.api.tasks import deliveries_openapi as deliveries
from ingress.api.tasks import events_openapi as events
from ingress.api.tasks import openapi as tasks

TITLE = "Headrace"
API_MODULES = (bella, openai, media, tasks, deliveries, events, dify, files, batches, registry, admin)
KEYS = (
    "An API key. It belongs to a tenant, who sees its own tasks only, and has scopes: submit (put, cancel, and what a "
    "worker does), read, admin."
)


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version("headrace"),
            "description": "An inference task queue on Kafka: every accepted task gets exactly one outcome.",
        },
        "security": [{"key": []}],
        "paths": {
            **{
                path: {method: completed(path, method, operation) for method, operation in methods.items()}
                for door in API_MODULES
                for path, methods in door.paths().items()
            },
            "/livez": {"get": _probe("Does the process answer?", {"live": True})},
            "/readyz": {
                "get": _probe("Does the whole path work, from here to a model?", {"ready": True, "missing": []})
            },
            "/metrics": {"get": _metrics()},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": KEYS}},
            "schemas": {name: schema for door in API_MODULES for name, schema in door.schemas().items()},
        },
    }


def _probe(summary: str, example: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": {"description": "Yes.", "content": {"application/json": {"example": example}}}}
    if "missing" in example:
        lacking = {"ready": False, "missing": ["no dispatcher has been heard for 10 s"]}
        answers["503"] = {"description": "No; says what lacks.", "content": {"application/json": {"example": lacking}}}
    return {"summary": summary, "security": [], "responses": answers}


def _metrics() -> dict[str, Any]:
    answers = {"200": {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return {"summary": "Metrics", "security": [], "responses": answers}
