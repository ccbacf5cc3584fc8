"""The dialect of the errors below each path."""

from __future__ import annotations

from ingress.api.batches import routes as batches
from ingress.api.bella import routes as bella
from ingress.api.dify import errors as dify
from ingress.api.openai import responses as openai
from ingress.api.registry import routes as registry
from ingress.http.errors import Dialects

DIALECTS = Dialects(
    bella.problem,
    {"/queue": openai.problem, "/v1": openai.problem, "/v1/queue": bella.problem, "/v1/batches": batches.problem}
    | dict.fromkeys(dify.PATHS, dify.problem)
    | dict.fromkeys(registry.PATHS, registry.problem),
)
