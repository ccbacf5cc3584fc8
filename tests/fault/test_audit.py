"""The audit of the campaign finds what it is there to find: else a clean table would say nothing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from schemas.events import event
from schemas.records import Result
from streams.outputs import usage_of
from streams.state_machine.rows import early_cancel_status
from tests.fault.campaign.audit import Findings, judge
from tests.fault.campaign.evidence import Evidence
from tests.fault.campaign.explain import explain
from tests.fault.campaign.faults import Fault
from tests.fault.campaign.ledger import Accepted, Answer, Ledger
from tests.fault.campaign.report import Report
from tests.support.records import task_id
from tests.support.results import result_of
from tests.support.roles import settings_for

BLOW_MS = 1_000_000


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return Evidence(settings_for("127.0.0.1:1", tmp_path, "audit.")[0])


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def done(evidence: Evidence, ledger: Ledger, *, answer: Answer | None = None, **changes: object) -> str:
    """Enter a task that went as it should."""
    one = task_id()
    result: Result = result_of(one, **changes)
    row = {"id": one, "state": result["state"], "status_code": result["status_code"], "result_offset": 7}
    evidence.results[one].append((7, result))
    evidence.usage[one].append(usage_of(result))
    evidence.rows[one] = row  # type: ignore[assignment]
    evidence.work[one, result["attempt"]] += 1
    ledger.accepted[one] = Accepted("blocking", result["mode"], answer)
    return one


def test_a_campaign_in_which_all_went_well_is_clean(evidence: Evidence, ledger: Ledger) -> None:
    done(evidence, ledger, answer=Answer(200, b'{"ok":true}', "application/json"))
    done(evidence, ledger, state="failed", status_code=502, body=None, answer=Answer(502, b"{}", "application/json"))
    text = b'data: {"a":1}\n\ndata: [DONE]\n\n'
    done(evidence, ledger, mode="streaming", body=text, answer=Answer(200, b": hello\n\n" + text, "text/event-stream"))
    assert judge(ledger, evidence).clean


def test_lost_and_double_tasks_are_found(evidence: Evidence, ledger: Ledger) -> None:
    fine, lost, double = (done(evidence, ledger) for _ in range(3))
    del evidence.results[lost]
    del evidence.rows[lost]
    evidence.results[double].append((8, evidence.results[double][0][1]))
    found = judge(ledger, evidence)
    assert (found.lost, found.double) == ([lost], [double])
    assert fine not in str(found)


def test_usage_that_is_missing_double_or_other_than_its_result_is_found(evidence: Evidence, ledger: Ledger) -> None:
    fine, missing, double, other, alone = (done(evidence, ledger) for _ in range(5))
    evidence.usage[missing].clear()
    evidence.usage[double] *= 2
    evidence.usage[other][0]["total_tokens"] += 1
    del evidence.results[alone], evidence.rows[alone]
    found = judge(ledger, evidence).usage
    assert [one.partition(":")[0] for one in found] == [missing, double, other, alone]
    assert fine not in str(found)


def test_double_counts_tasks_without_notification_too(evidence: Evidence, ledger: Ledger) -> None:
    one = done(evidence, ledger)
    evidence.results[one] *= 2
    ledger.accepted.clear()
    assert judge(ledger, evidence).double == [one]


def test_a_row_without_a_result_is_found_unless_it_only_remembers_a_cancel(evidence: Evidence, ledger: Ledger) -> None:
    one, early = done(evidence, ledger), task_id()
    del evidence.results[one]
    evidence.rows[one] = {**evidence.rows[one], "source_offset": 3}
    evidence.rows[early] = early_cancel_status(event("cancel", at_ms=1, task_id=early), now_ms=1)
    [line] = judge(ledger, evidence).rows
    assert one in line


@pytest.mark.parametrize("wrong", [{"state": "failed"}, {"status_code": 500}, {"result_offset": 8}])
def test_a_row_that_disagrees_is_found(evidence: Evidence, ledger: Ledger, wrong: dict[str, object]) -> None:
    one = done(evidence, ledger)
    evidence.rows[one] = {**evidence.rows[one], **wrong}  # type: ignore[typeddict-item]
    [line] = judge(ledger, evidence).rows
    assert one in line


@pytest.mark.parametrize(
    "answer",
    [Answer(200, b'{"ok":false}', "application/json"), Answer(500, b'{"ok":true}', "application/json")],
)
def test_an_answer_that_is_not_the_stored_one_is_found(evidence: Evidence, ledger: Ledger, answer: Answer) -> None:
    one = done(evidence, ledger, answer=answer)
    [line] = judge(ledger, evidence).answers
    assert one in line


def test_a_stream_that_ended_well_with_other_frames_is_found(evidence: Evidence, ledger: Ledger) -> None:
    text, told = b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n", b"data: 1\n\ndata: [DONE]\n\n"
    done(evidence, ledger, mode="streaming", body=text, answer=Answer(200, told, "text/event-stream"))
    assert len(judge(ledger, evidence).answers) == 1


def fault(member: str, kind: str = "kill", *, until_ms: int = BLOW_MS + 5_000) -> Fault:
    return Fault(1, kind, member, BLOW_MS, until_ms=until_ms, first_s=1, whole_s=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("blow", "first_ms", "spoken_ms", "cause"),
    [
        (fault("dispatcher-0"), BLOW_MS - 300, None, "dispatcher killed"),
        (fault("dispatcher-0"), BLOW_MS - 5_000, BLOW_MS + 3_000, "dispatcher killed"),
        (fault("dispatcher-0"), BLOW_MS - 5_000, BLOW_MS - 300, None),
        (fault("dispatcher-0"), BLOW_MS - 5_000, BLOW_MS - 4_500, None),
        (fault("dispatcher-0"), BLOW_MS + 500, None, "dispatcher killed"),
        (fault("dispatcher-0"), BLOW_MS + 2_000, None, None),
        (fault("dispatcher-0", "freeze"), BLOW_MS + 3_000, BLOW_MS + 9_000, "dispatcher frozen"),
        (fault("dispatcher-0", "freeze"), BLOW_MS + 3_000, BLOW_MS, None),
        (fault("dispatcher-0", "freeze"), BLOW_MS - 2_000, BLOW_MS, "dispatcher frozen"),
        (fault("dispatcher-0", "restart"), BLOW_MS - 300, None, None),
        (fault("broker"), BLOW_MS + 1_000, BLOW_MS + 8_000, "broker killed"),
        (fault("broker"), BLOW_MS + 1_000, BLOW_MS, None),
        (fault("broker"), BLOW_MS + 1_000, BLOW_MS - 2_000, None),
        (fault("machine", "freeze"), BLOW_MS + 1_000, BLOW_MS + 8_000, "machine frozen"),
        (fault("machine", "freeze"), BLOW_MS + 1_000, BLOW_MS - 2_000, None),
        (fault("online-0"), BLOW_MS - 300, None, None),
    ],
)
def test_a_call_made_again_needs_a_cause(
    evidence: Evidence, ledger: Ledger, blow: Fault, first_ms: int, spoken_ms: int | None, cause: str | None
) -> None:
    one = done(evidence, ledger)
    if spoken_ms is not None:
        evidence.spoken_ms[one, 1] = spoken_ms
    repeats = explain({one: [first_ms, first_ms + 8_000]}, evidence, [blow])
    assert repeats.total == 1
    assert [*repeats.causes] == ([cause] if cause else [])
    assert len(repeats.unexplained) == (cause is None)


def test_a_standstill_of_the_machine_is_noted_as_a_fault() -> None:
    program = (
        "import os, signal, subprocess, time\n"
        "from tests.fault.campaign.standstills import standstills\n"
        "with standstills() as found:\n"
        "    time.sleep(0.5)\n"
        "    subprocess.Popen(['sh', '-c', f'sleep 2; kill -CONT {os.getpid()}'])\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    time.sleep(0.5)\n"
        "print([one.role for one in found if one.freeze_s > 1.5])\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "machine" in told.stdout


def test_one_call_per_attempt_needs_none(evidence: Evidence, ledger: Ledger) -> None:
    one = done(evidence, ledger, attempt=2)
    assert explain({one: [1, 2]}, evidence, []).total == 0
    evidence.work[one, 2] += 1
    assert explain({one: [1, 2, 3]}, evidence, []).causes == {"work record written twice": 1}


def test_the_report_names_what_is_wrong(evidence: Evidence, ledger: Ledger) -> None:
    stuck = fault("online-0")
    stuck.first_s = None
    report = Report(
        seed=1,
        seconds=2,
        faults=[stuck],
        ledger=ledger,
        results=0,
        letters=Counter(),
        states=Counter(),
        findings=Findings(lost=["A"]),
        repeats=explain({}, evidence, []),
        unasked=0,
    )
    assert not report.kept
    assert [line.partition(":")[0] for line in report.problems()] == ["lost", "not recovered"]
    assert "| lost | 1 |" in report.table()
