"""The HTTP application. Apart from the process (ingress/main.py), so that it can be served by another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from fastapi import FastAPI

from core.settings.models import Settings
from ingress.api import openapi
from ingress.api.batches.routes import requested_renderer
from ingress.api.dialects import DIALECTS
from ingress.auth.rate_limits import QuotaHeaders
from ingress.http import errors
from ingress.http.request_ids import RequestIds
from ingress.runtime import Ingress, StartupTask


def create_app(settings: Settings) -> FastAPI:
    """Build the application; its lifespan opens and closes the ingress, which is in `app.state`.

    The lifespan does not wait for Kafka: probes, and puts with a plain 503, are answered while `app.state.opening` is
    under way. Raises ConfigError.
    """
    ingress = Ingress(settings)
    opening = StartupTask(ingress)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        opening.start()
        try:
            async with ingress.keys_file.followed_by(ingress.keys) if ingress.keys_file else nullcontext():
                yield
        finally:
            await opening.close()

    app = FastAPI(
        title=openapi.TITLE,
        lifespan=lifespan,
        openapi_url=None,  # served by ingress/api/infrastructure.py
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.ingress = ingress
    app.state.opening = opening
    app.state.made = {}
    app.router.routes += [route for router in openapi.ROUTERS for route in router.routes]
    app.openapi = openapi.document  # type: ignore[method-assign]
    app.add_middleware(QuotaHeaders)
    errors.install(app, DIALECTS, choose=partial(requested_renderer, default=settings.batches.dialect))
    app.middleware_stack = RequestIds(app.build_middleware_stack())
    return app
