"""All routes under /v1/admin, for keys with the scope admin."""

from __future__ import annotations

from starlette.routing import Route

from ingress.api.admin.dead_letters import LetterAdmin
from ingress.api.admin.queues import QueueAdmin
from ingress.api.admin.state import StateAdmin
from ingress.api.admin.tasks import TaskAdmin
from ingress.runtime import Services


class AdminRoutes:
    """Administration over one set of services."""

    def __init__(self, services: Services) -> None:
        self._parts = (QueueAdmin(services), TaskAdmin(services), LetterAdmin(services), StateAdmin(services))

    def routes(self) -> list[Route]:
        """List the routes."""
        return [route for part in self._parts for route in part.routes()]
