from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.observability.logs import CHATTER, REQUEST_ID, Redactor, setup_logging
from core.settings.models import LogSettings

SECRET = 'sk-"quoted"\\secret'
log = logging.getLogger("tests.logs")
Format = Literal["text", "json"]
both = pytest.mark.parametrize("form", ["text", "json"])


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the root logger as other tests expect it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in CHATTER}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def one_object(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


def test_json_is_one_object_with_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format="json"), "ingress")
    log.info("took %d tasks", 3, extra={"event": "taken", "task_id": "TASK-1", "offset": 7, "body": b"x"})
    found = one_object(capsys)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "tests.logs",
        "role": "ingress",
        "event": "taken",
        "message": "took 3 tasks",
        "task_id": "TASK-1",
        "offset": 7,
        "body": "x",
    }


def test_an_extra_field_cannot_pose_as_a_fixed_one(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format="json"), "ingress")
    log.info("hello", extra={"event": "x", "role": "forged", "level": "forged", "time": "forged"})
    found = one_object(capsys)
    assert (found["role"], found["level"]) == ("ingress", "info")
    assert found["time"] != "forged"


def test_json_holds_the_exception_and_line_breaks_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format="json"), "streams")
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        log.exception("first\nsecond", extra={"event": "broken"})
    found = one_object(capsys)
    assert found["message"] == "first\nsecond"
    assert "ValueError: broken\nin two" in found["exception"]


@pytest.mark.parametrize("odd", [{("a", 1): 2}, {"x": object()}, float("nan"), "\ud800", {1, 2}])
def test_json_takes_any_field(odd: object, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format="json"), "streams")
    log.info("odd", extra={"event": "odd", "value": odd})
    assert one_object(capsys)["event"] == "odd"


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(), "dispatcher")
    log.warning("slow", extra={"event": "slow", "queue": "default"})
    line = capsys.readouterr().err
    assert line.rstrip().endswith("WARNING dispatcher tests.logs: slow [queue=default]")


def test_a_second_set_up_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    others = list(logging.getLogger().handlers)
    setup_logging(LogSettings(), "ingress")
    setup_logging(LogSettings(), "ingress")
    log.info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert set(others) <= set(logging.getLogger().handlers)


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_the_root_logger_is_never_at_debug_unless_asked(level: Literal["info", "warning", "error"]) -> None:
    setup_logging(LogSettings(level=level), "streams")
    assert logging.getLogger().level == logging.getLevelNamesMapping()[level.upper()]
    assert not log.isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize("name", CHATTER)
def test_libraries_only_warn(name: str) -> None:
    library = logging.getLogger(f"{name}.inside")
    setup_logging(LogSettings(level="info"), "streams")
    assert not library.isEnabledFor(logging.INFO)
    assert library.isEnabledFor(logging.WARNING)
    setup_logging(LogSettings(level="error"), "streams")
    assert not library.isEnabledFor(logging.WARNING)
    setup_logging(LogSettings(level="debug"), "streams")
    assert library.isEnabledFor(logging.DEBUG)


@both
def test_a_configured_secret_never_appears(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format=form), "ingress", secrets=[SECRET])
    try:
        raise ValueError(f"bad key {SECRET}")
    except ValueError:
        log.exception("got %s", SECRET, extra={"event": "x", "key": SECRET, "inner": {"deep": [SECRET]}})
    written = capsys.readouterr().err
    assert SECRET not in written
    assert "quoted" not in written
    assert written.count("***") >= 4


@both
@pytest.mark.parametrize(
    "leak",
    [
        "Authorization: Bearer LEAK",
        "authorization: LEAK",
        "{'Authorization': 'Bearer LEAK'}",
        '{"authorization": "Basic LEAK"}',
        "[(b'authorization', b'Bearer LEAK')]",
        "Headers([('authorization', 'LEAK')])",
        "curl -H 'Proxy-Authorization: Basic LEAK=='",
        "x-api-key: LEAK",
        "api_key=LEAK",
        "bearer   LEAK.with-more_parts~+/==",
        "BEARER LEAK",
    ],
)
def test_credentials_never_appear(form: Format, leak: str, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format=form), "ingress")
    log.info("request %s", leak, extra={"event": "x", "sent": leak})
    log.info("pair", extra={"event": "x", "headers": {"leak": leak}})
    written = capsys.readouterr().err
    assert "LEAK" not in written
    assert "***" in written
    assert "request" in written


@given(secret=st.text(min_size=4), before=st.text(), after=st.text())
def test_any_secret_is_taken_out_of_any_text(secret: str, before: str, after: str) -> None:
    hidden = Redactor([secret])(before + secret + after)
    assert secret not in hidden or secret in "***"
    assert secret not in json.loads(Redactor([secret])(json.dumps({"a": secret})))["a"]


def test_a_key_that_begins_another_does_not_uncover_its_end() -> None:
    assert Redactor(["secret", "secret-longer"])("x secret-longer y") == "x *** y"


def test_ordinary_lines_stay_as_they_are() -> None:
    line = "batch of 500 records at offset 7, the bearer: none, /v1/chat/completions answered 200 in 12 ms"
    assert Redactor(["a-secret", ""])(line) == line


def test_what_passes_by_itself_in_a_kafka_client_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    client = logging.getLogger("aiokafka.cluster")
    setup_logging(LogSettings(format="json"), "streams")
    client.error("Topic %s not found in cluster metadata", "headrace.tasks.online")
    assert one_object(capsys)["level"] == "info"
    setup_logging(LogSettings(format="json", level="warning"), "streams")
    client.error("Topic %s not found in cluster metadata", "headrace.tasks.online")
    assert capsys.readouterr().err == ""


@both
def test_the_lines_of_a_request_carry_its_id(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(LogSettings(format=form), "ingress")
    token = REQUEST_ID.set("mine-7")
    log.warning("within")
    REQUEST_ID.reset(token)
    log.warning("without")
    within, without = capsys.readouterr().err.splitlines()
    assert ("request_id=mine-7" if form == "text" else '"request_id": "mine-7"') in within
    assert "request_id" not in without
