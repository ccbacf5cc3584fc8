"""`headrace keys`."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.commands.keys import keys
from ingress.auth.keys import Keys
from ingress.auth.keys_file import read_keys

pytestmark = pytest.mark.usefixtures("empty_folder")


def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
    return CliRunner().invoke(keys, arguments, input=stdin, env=environ)


def test_new_keys_work_with_the_lines_that_are_printed(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = []
    for options in (
        ("--tenant", "acme", "--id", "web"),
        ("--tenant", "acme", "--scope", "read", "--concurrency", "5"),
        ("--tenant", "b.c", "--requests-per-minute", "60", "--expires", "2999-01-31T00:00:00Z"),
    ):
        shown = run("new", *options).stdout
        key, sentence, lines = shown.split("\n\n")
        assert "not printed again" in sentence
        assert key not in lines
        made.append(key)
        with file.open("a") as out:
            out.write(lines)
    accepted = Keys([], from_file=read_keys(file))
    first, second, third = (accepted.holder(key, "read") for key in made)
    assert (first.owner, first.key, first.scopes) == ("acme", "acme/web", {"submit", "read"})
    assert (second.owner, second.scopes, second.limits.concurrency) == ("acme", {"read"}, 5)
    assert (third.owner, third.limits.requests_per_minute) == ("b.c", 60)
    listed = run("list", HEADRACE_AUTH_KEYS_FILE=str(file), HEADRACE_AUTH_API_KEYS="sk-plain", COLUMNS="200").stdout
    for words in ("acme/web", "submit,read", "b.c", "until 2999-01-31", f"key-{sha256(b'sk-plain').hexdigest()[:12]}"):
        assert words in listed
    for key in (*made, "sk-plain"):
        assert key not in listed


def test_a_key_that_is_piped_in_is_hashed() -> None:
    assert run("hash", stdin="sk-x\n").stdout == f"sha256:{sha256(b'sk-x').hexdigest()}\n"
    refused = run("hash", stdin="a b\n")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: a key must be printable ASCII without blanks, and not empty\n",
    )


def test_mistakes_are_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    assert run("new", "--expires", "soon").stderr == (
        "Error: key 1 of tenant default: expires must be a time with its zone, such as 2027-01-31T00:00:00Z\n"
    )
    (tmp_path / "keys.toml").write_text("x")
    listed = run("list", HEADRACE_AUTH_KEYS_FILE="keys.toml")
    assert listed.exit_code == 1
    assert listed.stderr.startswith("Error: the keys file keys.toml is not valid TOML at ")


def test_the_local_key_is_shown(tmp_path: Path) -> None:
    assert "hr-local" in run("list").stdout
    assert "HEADRACE_AUTH_KEYS_FILE" in run("list", HEADRACE_INGRESS_HOST="0.0.0.0").stderr
