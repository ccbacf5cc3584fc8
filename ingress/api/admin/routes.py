"""All routes under /v1/admin, for keys with the scope admin."""

from __future__ import annotations

from starlette.routing import Route

from ingress.api.admin.dead_letters import DeadLetterRoutes
from ingress.api.admin.queues import QueueAdminRoutes
from ingress.api.admin.state import StateRoutes
from ingress.api.admin.tasks import TaskAdminRoutes
from ingress.runtime import Ingress


class AdminRoutes:
    """Administration of one ingress."""

    def __init__(self, ingress: Ingress) -> None:
        self._parts = (
            QueueAdminRoutes(ingress),
            TaskAdminRoutes(ingress),
            DeadLetterRoutes(ingress),
            StateRoutes(ingress),
        )

    def routes(self) -> list[Route]:
        """List the routes."""
        return [route for part in self._parts for route in part.routes()]
