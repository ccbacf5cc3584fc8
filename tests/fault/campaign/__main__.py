"""`python -m tests.fault.campaign --seed N --kills N`: exit code 1 when a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.fault.campaign.run import campaign


def main() -> int:
    """Run a campaign and print its table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fault.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides load and blows; default: the time")
    parser.add_argument("--kills", type=int, default=300, help="how many processes are killed, frozen or restarted")
    parser.add_argument("--limit-s", type=float, default=math.inf, help="strike no more after so many seconds")
    parser.add_argument("--json", type=Path, help="where the whole report goes; default: a file in the folder of logs")
    options = parser.parse_args()
    # So that SIGTERM takes the cluster down too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="headrace-campaign-"))
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {line}\n")
        sys.stdout.flush()

    say(f"seed {options.seed}, {options.kills} faults")
    report = asyncio.run(campaign(options.seed, options.kills, folder, limit_s=options.limit_s, say=say))
    target = options.json or folder / "report.json"
    target.write_text(json.dumps(report.as_json(), indent=1))
    sys.stdout.write("\n".join(["", report.table(), "", *report.problems(), f"JSON: {target}", ""]))
    if report.kept and options.json:
        shutil.rmtree(folder)
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
