"""How tests are shared out among worker processes: what shares a set-up stays together, and the long ones go first."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

SHARED_SETUP = ("tests/api/", "tests/integration/operations/")
"""Folders whose modules share a stack or a site; any other module is a unit of its own."""

SECONDS = {
    "tests/integration/test_replay.py": 100,
    "tests/integration/test_batches_scheduler.py": 80,
    "tests/integration/operations/": 100,
    "tests/api/": 100,
    "tests/fault/test_any_role.py": 60,
    "tests/fault/test_usage.py": 60,
    "tests/fault/test_batch_killed.py": 60,
    "tests/fault/test_campaign.py": 90,
    "tests/fault/test_killed_sender.py": 50,
    "tests/integration/test_batches_http.py": 60,
    "tests/integration/test_scheduler_crashes.py": 60,
    "tests/integration/test_scheduler.py": 50,
    "tests/local/test_whole.py": 50,
    "tests/local/test_launch.py": 40,
    "tests/fault/test_three_brokers.py": 40,
    "tests/integration/dispatcher/test_batches_whole.py": 50,
    "tests/integration/dispatcher/test_webhook_rounds.py": 50,
}
"""About how long the units take that take longest, from `--durations=0`: one that came last would hold up the end."""


def unit_of(nodeid: str) -> str:
    """Return the unit of a test: the folder where that shares its set-up, else the module."""
    module = nodeid.partition("::")[0]
    return next((folder for folder in SHARED_SETUP if module.startswith(folder)), module)


class Distribution(LoadScopeScheduling):
    """Hands whole units to workers, the long ones first."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _assign_work_unit(self, node: object) -> None:
        first = max(self.workqueue, key=lambda unit: SECONDS.get(unit, 0))  # of equals the first, as they were shuffled
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
