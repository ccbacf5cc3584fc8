from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ConfigError, Unavailable
from core.instance_lock import claim_instance

HOLDER = """
import sys, time
from pathlib import Path
from core.instance_lock import claim_instance
with claim_instance(Path(sys.argv[1])) as instance:
    print(instance.number, flush=True)
    time.sleep(60)
"""


def test_the_lowest_free_number_is_taken(tmp_path: Path) -> None:
    with claim_instance(tmp_path) as first, claim_instance(tmp_path) as second:
        assert (first.number, second.number) == (0, 1)
        assert first.folder == tmp_path / "0"
        assert first.folder.is_dir()
        first.release()
        with claim_instance(tmp_path) as third:
            assert third.number == 0


def test_the_folder_keeps_its_state(tmp_path: Path) -> None:
    with claim_instance(tmp_path / "streams" / "online") as instance:
        (instance.folder / "state").write_text("kept")
    with claim_instance(tmp_path / "streams" / "online") as instance:
        assert (instance.folder / "state").read_text() == "kept"


def test_a_killed_process_frees_its_number(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "0\n"
        with claim_instance(tmp_path) as beside:
            assert beside.number == 1
        holder.kill()
        holder.wait()
    with claim_instance(tmp_path) as successor:
        assert successor.number == 0


def test_a_child_process_does_not_hold_the_number(tmp_path: Path) -> None:
    instance = claim_instance(tmp_path)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        instance.release()
        with claim_instance(tmp_path) as again:
            assert again.number == 0
        child.kill()


def test_too_many_is_a_clear_error(tmp_path: Path) -> None:
    with claim_instance(tmp_path, limit=1), pytest.raises(Unavailable, match="all 1 instance numbers"):
        claim_instance(tmp_path, limit=1)


def test_a_folder_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another data_dir"):
        claim_instance(tmp_path / "file" / "streams")
