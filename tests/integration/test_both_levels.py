"""`headrace streams` without a level: one process per level, stopped and failing together."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from schemas.topics import LEVELS
from tests.support.kafka import declared_topics
from tests.support.roles import running, settings_for
from tests.support.waiting import eventually_async, is_alive


async def test_two_levels_run_under_one_command_and_end_with_it(kafka: str, tmp_path: Path) -> None:
    settings, env = settings_for(kafka, tmp_path, f"lanes-{time.time_ns()}.")
    async with declared_topics(settings):
        for way in ("stop", "kill"):
            with running("streams", env=env, log=tmp_path / f"{way}.log") as role:
                await eventually_async(
                    lambda: all(f"{level} scheduler owns" in role.log for level in LEVELS),
                    within_s=120,
                    what="both levels",
                )
                children = [child.pid for child in psutil.Process(role.pid).children(recursive=True)]
                assert len(children) == 2
                if way == "stop":
                    assert role.stop() == 0
                else:
                    role.kill()
                await eventually_async(lambda: not any(map(is_alive, children)), what="no process left")  # noqa: B023
