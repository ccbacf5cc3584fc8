"""The Faust application of one scheduler, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.settings.models import Settings
from streams.faust.app import SchedulerApp


async def _do_nothing(*_: Any) -> None:
    """Take what is given."""


def scheduler_app(settings: Settings, level: int, *, folder: Path) -> SchedulerApp:
    """Build the application of a level; its callbacks do nothing, and it has nothing to commit."""
    return SchedulerApp(
        settings,
        level,
        folder=folder,
        instance=0,
        on_event=_do_nothing,
        on_ready=_do_nothing,
        on_revoked=_do_nothing,
        committable=lambda _: None,
    )
