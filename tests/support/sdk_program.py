"""Run the programs of tests/api with the installed OpenAI SDK and with the last major version before, both at once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import openai

from tests.support.older_sdk import older_sdk

ROOT = Path(__file__).parents[2]
PROGRAMS_S = 300

Reports = dict[str, dict[str, Any]]
"""By version, "newest" and "one major before": its number, and what each program reports."""


async def reports_of_both(root: str, key: str) -> Reports:
    """Run all programs with either version."""
    older = await asyncio.to_thread(older_sdk)
    newest, before = await asyncio.gather(_report_of(root, key), _report_of(root, key, PYTHONPATH=str(older)))
    major = int(openai.__version__.partition(".")[0])
    assert [int(one["version"].partition(".")[0]) for one in (newest, before)] == [major, major - 1]
    return {"newest": newest, "one major before": before}


async def _report_of(root: str, key: str, **environ: str) -> dict[str, Any]:
    """Return what the programs have printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")} | environ
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.api.sdk_main",
        root,
        key,
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PROGRAMS_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found
