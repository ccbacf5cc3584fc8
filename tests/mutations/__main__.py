"""Take out one protection after the other in a copy of the tree, and see that a test fails each time.

    python -m tests.mutations [--only TEXT] [--list]

Every test named in the catalogue has to pass on the copy as it is first; then each protection is taken out by itself.
Exit code 1 when a mutation survives: its protection could go unnoticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, Mutation
from tests.mutations.find import ROOT, nodes_of
from tests.support.kafka import VARIABLE, kafka_for_tests

FAILED, PASSED = 1, 0
"""Exit codes of pytest: a test failed, all passed; anything else is a run that shows nothing."""
FLAGS = ("-x", "-q", "-p", "no:cacheprovider", "--no-header", "--no-summary")


def main() -> int:
    """Run what the arguments ask for and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="only those with TEXT in their name")
    parser.add_argument("--list", action="store_true", help="list them and their tests, and run nothing")
    arguments = parser.parse_args()
    chosen = [one for one in MUTATIONS if arguments.only in one.name]
    if arguments.list:
        for one in chosen:
            print(one.name, *nodes_of(one), sep="\n    ")
        return 0
    with tempfile.TemporaryDirectory(prefix="headrace-mutations-") as name, ExitStack() as stack:
        kafka = stack.enter_context(kafka_for_tests(Path(name) / "kafka"))
        return _survivors(Path(name) / "tree", kafka, chosen)


def _survivors(tree: Path, kafka: str, chosen: Sequence[Mutation]) -> int:
    _copy(tree)
    environment = {**os.environ, VARIABLE: kafka, "PYTHONPATH": str(tree)}
    nodes = sorted({node for one in chosen for node in nodes_of(one)})
    print(f"[0/{len(chosen)}] {len(nodes)} tests on the tree as it is", flush=True)
    if (code := _run(tree, nodes, environment)) != PASSED:
        print(f"they do not pass (exit code {code}); nothing can be shown by them")
        return 2
    survived = []
    for number, one in enumerate(chosen, 1):
        began = time.monotonic()
        file = tree / one.file
        text = file.read_text()
        file.write_text(text.replace(one.old, one.new))
        try:
            code = _run(tree, nodes_of(one), environment)
        finally:
            file.write_text(text)
        caught = code == FAILED
        if not caught:
            survived.append(one)
        verdict = "caught" if caught else f"SURVIVED (exit code {code})"
        print(f"[{number}/{len(chosen)}] {verdict:8} {time.monotonic() - began:5.1f} s  {one.name}", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    return 1 if survived else 0


def _copy(tree: Path) -> None:
    """Copy what git tracks, and what it does not track yet and does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def _run(tree: Path, nodes: Sequence[str], environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *FLAGS, *nodes]
    return subprocess.run(command, cwd=tree, env=environment, check=False, stdout=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
