"""Run a program of tests/api with the installed OpenAI SDK, or with the last major version before."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.older_sdk import older_sdk

PROGRAM_S = 150


async def report_of(program: Path, *arguments: str, older: bool) -> dict[str, Any]:
    """Return what a program has printed, a JSON object."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    if older:
        env["PYTHONPATH"] = str(await asyncio.to_thread(older_sdk))
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, *arguments, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PROGRAM_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found
