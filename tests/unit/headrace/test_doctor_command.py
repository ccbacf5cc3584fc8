"""What `headrace doctor` prints of what it was told."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from headrace.client import AdminClient
from headrace.commands import doctor

URL = "http://there:81/a b"
STEPS = (
    "`headrace queues set night --concurrency N`, or start another `headrace dispatcher`",
    "run `headrace topics apply`",
)


def test_http_commands_take_the_address_of_the_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: AdminClient, path: str) -> Any:
        assert path == "doctor"
        return {"healthy": True, "data": [{"weight": "note", "what": "", "next_step": step} for step in STEPS]}

    monkeypatch.setattr(AdminClient, "get", get)
    told = CliRunner().invoke(doctor.doctor, ["--url", URL])
    assert told.exit_code == 0, told.output
    assert "next: `headrace queues set night --concurrency N --url 'http://there:81/a b'`, or start" in told.stdout
    assert told.stdout.count("--url") == 1
    told = CliRunner().invoke(doctor.doctor, env={"HEADRACE_URL": URL})
    assert STEPS[0] in told.stdout
    assert "--url" not in told.stdout
    as_json = CliRunner().invoke(doctor.doctor, ["--json", "--url", URL])
    assert STEPS[0] in as_json.stdout
