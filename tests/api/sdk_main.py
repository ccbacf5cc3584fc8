"""Everything that the stock OpenAI SDK is asked to do, whichever version is found.

`python -m tests.api.sdk_main ROOT KEY` prints a JSON object: the SDK's version, and for each program prefix and
scenario → null, or the trace of what went wrong. The programs run at once, since each mostly waits for its answers.
"""

from __future__ import annotations

import json
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import openai

from tests.api import batches_program, media_program, openai_program

PROGRAMS = {"openai": openai_program, "media": media_program, "batches": batches_program}


def run(program: ModuleType, root: str, key: str) -> dict[str, str | None]:
    """Run every scenario of a program over each of its base URLs."""
    report: dict[str, str | None] = {}
    for prefix in program.PREFIXES:
        with program.client_of(root + prefix, key) as client:
            for name, scenario in program.SCENARIOS.items():
                try:
                    scenario(client)
                except Exception:  # noqa: BLE001 - the test shows it
                    report[f"{prefix} {name}"] = traceback.format_exc()
                else:
                    report[f"{prefix} {name}"] = None
    return report


def main(root: str, key: str) -> None:
    """Run everything."""
    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        running = {name: pool.submit(run, program, root, key) for name, program in PROGRAMS.items()}
        reports = {name: report.result() for name, report in running.items()}
    sys.stdout.write(json.dumps({"version": openai.__version__, **reports}))


if __name__ == "__main__":
    main(*sys.argv[1:])
