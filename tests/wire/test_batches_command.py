"""`headrace batches` against the real application and its server; the test plays scheduler and writer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from core.settings.loader import load_settings
from core.settings.models import Settings
from headrace import batch_display as display
from headrace.commands.batches import INTERRUPTED, batches
from tests.support.memory_batches import LINES, events_of, moved, proposed, stored_part
from tests.support.memory_ingress import Memory
from tests.support.memory_server import Served, served_in_memory
from tests.support.waiting import eventually_async


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_in_memory(Settings(data_dir=tmp_path / "data")) as running:
        yield running


async def run(served: Served, *arguments: str, key: str = "hr-local") -> Result:
    """Run the command in a thread, for the server answers from this loop."""
    env = {"HEADRACE_URL": f"http://127.0.0.1:{served.port}", "HEADRACE_API_KEY": key, "COLUMNS": "200"}
    return await asyncio.to_thread(CliRunner().invoke, batches, arguments, env=env)


async def first_batch(memory: Memory) -> str:
    """Return the id of the batch that is created next."""
    await eventually_async(lambda: events_of(memory), what="a batch")
    return events_of(memory)[0]["id"]


async def completed(memory: Memory) -> str:
    """Let the first batch run and end with one good and one bad answer."""
    batch_id = await first_batch(memory)
    await moved(memory, batch_id, state="in_progress", total=2, fed=2, completed=1)
    part = await stored_part(memory, batch_id, 5, b'{"custom_id":"a"}\n', b'{"custom_id":"b"}\n')
    counts = {"total": 2, "fed": 2, "completed": 1, "failed": 1}
    await moved(memory, batch_id, state="completed", completed_ms=5_000, parts=[part], **counts)
    return batch_id


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(LINES)
    return path


async def test_submit_and_wait_prints_the_answers(served: Served, requests: Path) -> None:
    options = ("--model", "m", "--queue", "night", "--window", "2d", "--metadata", "a=b=c", "--wait")
    ran, batch_id = await asyncio.gather(run(served, "submit", str(requests), *options), completed(served.memory))
    assert (ran.exit_code, ran.stdout) == (0, '{"custom_id":"a"}\n'), ran.output
    assert f"{batch_id} completed: 1 of 2 requests completed, 1 failed" in ran.stderr
    assert f"headrace batches output {batch_id} --errors" in ran.stderr
    row = proposed(served.memory, batch_id)
    assert (row["replace"], row["queue"], row["completion_window"]) == (b'{"model":"m"}', "night", "2d")
    assert row["metadata"] == {"a": "b=c"}


async def test_answers_go_to_a_file_and_the_failed_ones_beside_it(
    served: Served, requests: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    submitted = run(served, "submit", str(requests), "--output", str(target), "--json")
    ran, batch_id = await asyncio.gather(submitted, completed(served.memory))
    assert ran.exit_code == 0, ran.output
    assert target.read_bytes() == b'{"custom_id":"a"}\n'
    assert (tmp_path / "out.errors.jsonl").read_bytes() == b'{"custom_id":"b"}\n'
    assert not (tmp_path / "out.jsonl.part").exists()
    assert json.loads(ran.stdout)["id"] == batch_id


async def test_a_file_with_faults_is_told_line_by_line(served: Served, requests: Path) -> None:
    async def failing() -> None:
        batch_id = await first_batch(served.memory)
        error = {"code": "invalid_json_line", "message": "This is no JSON.", "param": None, "line": 7}
        await moved(served.memory, batch_id, state="failed", failed_ms=5, errors=[error] * 25)

    ran, _ = await asyncio.gather(run(served, "submit", str(requests), "--wait"), failing())
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "line 7: This is no JSON. (invalid_json_line)" in ran.stderr
    assert "and 5 more" in ran.stderr


async def test_submit_list_show_output_and_cancel(served: Served, requests: Path, tmp_path: Path) -> None:
    submitted = await run(served, "submit", str(requests))
    batch_id = await first_batch(served.memory)
    assert submitted.stdout.startswith(f"{batch_id} is accepted. Check its progress: headrace batches show {batch_id}")
    await moved(served.memory, batch_id, state="in_progress", total=2, fed=2, completed=1)
    listed = await run(served, "list")
    assert batch_id in listed.stdout
    assert "1/2" in listed.stdout
    assert [one["id"] for one in json.loads((await run(served, "list", "--json", "--limit", "5")).stdout)] == [batch_id]
    shown = await run(served, "show", batch_id)
    assert "2 total, 1 completed, 0 failed" in shown.stdout
    assert json.loads((await run(served, "show", batch_id, "--json")).stdout)["status"] == "in_progress"
    part = await stored_part(served.memory, batch_id, 5, b'{"n":1}\n')
    await moved(served.memory, batch_id, state="cancelling", cancelling_ms=5, parts=[part], total=2, completed=1)
    assert (await run(served, "output", batch_id)).stdout == '{"n":1}\n'
    await run(served, "output", batch_id, "--output", str(tmp_path / "o"))
    assert (tmp_path / "o").read_bytes() == b'{"n":1}\n'
    assert "1 did not run" in (await run(served, "cancel", batch_id)).stdout


async def test_commands_that_are_named_ask_where_this_one_did(
    served: Served, requests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{served.port}"
    submit = ("submit", str(requests), "--url", url)
    ran, batch_id = await asyncio.gather(run(served, *submit, "--wait"), completed(served.memory))
    assert f"headrace batches output {batch_id} --errors --url {url}\n" in ran.stderr
    assert (await run(served, *submit)).stdout.endswith(f" --url {url}\n")
    assert "--url" not in (await run(served, "submit", str(requests))).stdout, "the environment leads both there"

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(display, "follow", interrupted)
    ran = await run(served, *submit, "--wait")
    assert (ran.exit_code, ran.stderr.count(f" --url {url}")) == (INTERRUPTED, 2)


async def test_errors_are_one_sentence(served: Served, requests: Path) -> None:
    cases = {
        ("show", "batch_x"): "Error: there is no batch batch_x\n",
        ("show", "../files"): "Error: '../files' is not a batch id\n",
        ("submit", str(requests), "--window", "1h"): "Error: completion_window must be whole hours from 24h to 336h, "
        "or days from 1d to 14d\n",
    }
    for arguments, said in cases.items():
        ran = await run(served, *arguments)
        assert (ran.exit_code, ran.stderr) == (1, said)
    assert "does not know this API key" in (await run(served, "list", key="nobody")).stderr
    assert (await run(served, "submit", "nowhere.jsonl")).exit_code == 2
    assert (await run(served, "submit", str(requests), "--metadata", "x")).exit_code == 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "cannot be reached"),
        ("ftp://there", "cannot be reached"),
        ("http://a b\x00/", "not a valid URL"),
    ],
)
def test_a_wrong_address_is_told(url: str, said: str) -> None:
    ran = CliRunner().invoke(batches, ["list", "--url", url])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: ")
    assert said in ran.stderr


def test_what_leads_the_command_to_a_stack_is_no_setting_of_one() -> None:
    found = load_settings(environ={"HEADRACE_URL": "http://there", "HEADRACE_API_KEY": "sk-x"})
    assert found.auth.api_keys == []


async def test_the_key_may_stand_in_a_file(served: Served, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfhr-local\n")
    env = {"HEADRACE_URL": f"http://127.0.0.1:{served.port}", "HEADRACE_API_KEY_FILE": str(tmp_path / "key")}

    async def listed(**more: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, batches, ["list"], env={**env, **more})

    assert (await listed()).exit_code == 0
    (tmp_path / "key").write_text("sk-wrong")
    assert "does not know this API key" in (await listed()).stderr
    (tmp_path / "key").unlink()
    gone = await listed()
    assert (gone.exit_code, "HEADRACE_API_KEY_FILE names cannot be read" in gone.stderr) == (1, True)
    assert "are both set" in (await listed(HEADRACE_API_KEY="hr-local")).stderr
    assert load_settings(environ=env) == load_settings(environ={})
