"""The Faust application of one scheduler, without a broker."""

from __future__ import annotations

from pathlib import Path

from core.settings.models import Settings
from streams.faust.app import SchedulerApp


def scheduler_app(settings: Settings, level: int, *, folder: Path) -> SchedulerApp:
    """Build the application of a level; it is never started."""
    return SchedulerApp(settings, level, folder=folder, instance=0)
