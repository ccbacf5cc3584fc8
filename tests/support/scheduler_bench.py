"""A scheduler process on a real broker, and a probe that sees all it writes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from core.settings.models import Settings
from tests.support.roles import Role, running, settings_for
from tests.support.scheduler_probe import SchedulerProbe, scheduler_probe
from tests.support.waiting import eventually_async

PREFIXES = iter(range(10_000))


class Bench:
    """A probe and a scheduler process on the same topics."""

    def __init__(
        self, probe: SchedulerProbe, role: Role, settings: Settings, env: dict[str, str], folder: Path
    ) -> None:
        self.probe, self.role, self.settings, self.env, self.folder = probe, role, settings, env, folder


@asynccontextmanager
async def scheduler_bench(kafka: str, folder: Path, **changes: object) -> AsyncIterator[Bench]:
    """Run both on topics of their own, with a retry after 0.2 s and other settings as named."""
    prefix = f"sched{next(PREFIXES)}-{time.time_ns()}."
    settings, env = settings_for(kafka, folder, prefix, streams__retry_base_s=0.2, **changes)
    async with scheduler_probe(settings) as probe:
        with running("streams", "--level", "online", env=env, log=folder / "streams.log") as role:
            await eventually_async(lambda: probe.heartbeats, within_s=90, what="the first heartbeat")
            yield Bench(probe, role, settings, env, folder)
