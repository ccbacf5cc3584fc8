"""How tests are shared out among worker processes: what shares a set-up stays together, and the long ones go first."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

SHARED_SETUP = (
    "tests/api/",
    "tests/integration/operations/",
    "tests/integration/restarts/",
    "tests/integration/site/",
)
"""Folders whose modules share a stack or a site; any other module is a unit of its own."""

ALONE = ("tests/api/test_fuzz.py",)
"""Modules in such folders that start nothing."""

SECONDS = {
    "tests/integration/test_replay_large.py": 60,
    "tests/integration/test_replay.py": 40,
    "tests/integration/test_batches_scheduler.py": 50,
    "tests/integration/operations/": 80,
    "tests/integration/restarts/": 90,
    "tests/integration/site/": 90,
    "tests/api/": 100,
    "tests/fault/test_any_role.py": 60,
    "tests/fault/test_usage.py": 30,
    "tests/fault/test_batch_killed.py": 40,
    "tests/fault/test_campaign.py": 90,
    "tests/fault/test_killed_sender.py": 50,
    "tests/integration/test_scheduler_crashes.py": 50,
    "tests/integration/test_scheduler.py": 30,
    "tests/local/test_whole.py": 50,
    "tests/local/test_launch.py": 40,
    "tests/docs/test_commands.py": 70,
    "tests/fault/test_three_brokers.py": 40,
    "tests/integration/dispatcher/test_batches_whole.py": 30,
    "tests/integration/dispatcher/test_webhook_restarts.py": 35,
}
"""About how long the units take that take longest, from `--durations=0`: one that came last would hold up the end."""


def unit_of(nodeid: str) -> str:
    """Return the unit of a test: the folder where that shares its set-up, else the module."""
    module = nodeid.partition("::")[0]
    if module in ALONE:
        return module
    return next((folder for folder in SHARED_SETUP if module.startswith(folder)), module)


class Distribution(LoadScopeScheduling):
    """Hands whole units to workers, the long ones first.

    A worker runs a test only once it knows the next, so it is given a unit before it is done with the last: one that is
    still at a long unit is given the shortest, which then waits for the least time behind it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        pending = [unit for unit, tests in self.assigned_work[node].items() if not all(tests.values())]
        choose = min if any(unit in SECONDS for unit in pending) else max
        chosen = choose(
            self.workqueue, key=lambda unit: SECONDS.get(unit, 0)
        )  # of equals the first: they were shuffled
        self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)
