"""All routes under /v1/admin, for keys with the scope admin."""

from __future__ import annotations

from starlette.routing import Route

from ingress.api.admin.dead_letters import DeadLetterRoutes
from ingress.api.admin.queues import QueueAdminRoutes
from ingress.api.admin.state import StateRoutes
from ingress.api.admin.tasks import TaskAdminRoutes
from ingress.runtime import Services


class AdminRoutes:
    """Administration over one set of services."""

    def __init__(self, services: Services) -> None:
        self._parts = (
            QueueAdminRoutes(services),
            TaskAdminRoutes(services),
            DeadLetterRoutes(services),
            StateRoutes(services),
        )

    def routes(self) -> list[Route]:
        """List the routes."""
        return [route for part in self._parts for route in part.routes()]
