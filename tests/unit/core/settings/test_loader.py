from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from core.errors import ConfigError
from core.settings.catalog import Variable, plain
from core.settings.loader import (
    LOCAL_KEY,
    api_keys,
    as_toml,
    environment,
    is_loopback,
    load_settings,
    secrets,
    variables,
)
from core.settings.models import Settings
from tests.support.config import refusal

SECRET = "sk-very-secret-1"
SETTINGS = variables()


pytestmark = pytest.mark.usefixtures("empty_folder")


def value_of(settings: Settings, dotted: str) -> Any:
    value: Any = settings
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def another(setting: Variable) -> str:
    """Return a legal value that is not the default, as a variable holds it."""
    return {
        "boolean": lambda: "false" if setting.default == "true" else "true",
        "integer": lambda: str(int(setting.default) + 1),
        "number": lambda: str(float(setting.default) * 1.5),
        "choice": lambda: min(set(setting.allowed.removeprefix("one of ").split(", ")) - {setting.default}),
        "list of number": lambda: "7.0,8.5",
        "list of integer": lambda: "443,8443",
        "list of text": lambda: "http://one/v1,https://two/v1" if "url" in setting.dotted else "one,two",
        "list of secret": lambda: "first-key-of-two,second-key-of-two",
    }.get(setting.type, lambda: setting.default + "other")()


WEBHOOK_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FITTING = {
    "kafka.min_insync_replicas": "1",
    "webhooks.secret": f"{WEBHOOK_KEY},whsk_{'A' * 43}",
    "webhooks.tenant_secrets": f"key-one={WEBHOOK_KEY},key-two={WEBHOOK_KEY}",
    **dict.fromkeys(("webhooks.public_url", "batches.callback_url", "kafka.registry_url"), "https://headrace.example"),
}
"""Settings of which another value fits only with another setting, or in one form."""


def test_nothing_given_means_the_defaults() -> None:
    assert load_settings(environ={}) == Settings()
    assert type(load_settings(environ={})) is Settings


PLAIN = [setting for setting in SETTINGS if setting.type != "table"]


@pytest.mark.parametrize("setting", PLAIN, ids=[setting.dotted for setting in PLAIN])
def test_every_setting_is_reachable_by_environment_flag_and_file(setting: Variable, tmp_path: Path) -> None:
    wanted = FITTING.get(setting.dotted) or another(setting)
    by_variable = load_settings(environ={setting.name: wanted})
    assert plain(value_of(by_variable, setting.dotted)) == wanted
    assert load_settings(environ={}, flags={setting.dotted: wanted}) == by_variable
    section, _, name = setting.dotted.rpartition(".")
    file = tmp_path / "given.toml"
    file.write_text((f"[{section}]\n" if section else "") + f'{name} = "{wanted}"\n')
    assert load_settings(environ={}, config=file) == by_variable


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.dotted for setting in SETTINGS])
def test_every_setting_is_described(setting: Variable) -> None:
    assert setting.description.endswith(".")
    assert setting.allowed
    assert setting.name.startswith("HEADRACE_")


def test_names_are_unique() -> None:
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)


@given(layers=st.sets(st.sampled_from(["file", "environment", "flag"])))
def test_the_stronger_layer_wins(layers: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    ports = {"file": 1001, "environment": 1002, "flag": 1003}
    config = None
    if "file" in layers:
        config = tmp_path_factory.mktemp("layers") / "headrace.toml"
        config.write_text('[ingress]\nport = 1001\nhost = "::1"\n')
    settings = load_settings(
        config=config,
        environ={"HEADRACE_INGRESS_PORT": "1002"} if "environment" in layers else {},
        flags={"ingress.port": 1003 if "flag" in layers else None},
    )
    assert settings.ingress.port == max([ports[layer] for layer in layers], default=8080)
    # A section is merged field by field and not replaced.
    assert settings.ingress.host == ("::1" if "file" in layers else "127.0.0.1")


def test_the_file_in_the_folder_is_read_unless_another_is_named(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("\ufeffmetrics_port = 1\n")
    (tmp_path / "other.toml").write_text("metrics_port = 2\n")
    assert load_settings(environ={}).metrics_port == 1
    assert load_settings(environ={}, config=tmp_path / "other.toml").metrics_port == 2


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings(environ={"HEADRACE_STORAGE_URL": "", "HEADRACE_KAFKA_PARTITIONS": ""}) == Settings()


def test_variables_of_tests_and_bench_and_of_others_are_left_alone() -> None:
    assert load_settings(environ={"HEADRACE_TEST_KAFKA": "x", "HEADRACE_BENCH_N": "x", "PATH": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HEADRACE_KAFKA_PARTITION", "HEADRACE_KAFKA_PARTITIONS"),
        ("HEADRACE_DATADIR", "HEADRACE_DATA_DIR"),
        ("HEADRACE_INGRES_PORT", "HEADRACE_INGRESS_PORT"),
        ("HEADRACE_WEBHOOKS_RETRY_DELAY", "HEADRACE_WEBHOOKS_RETRY_DELAYS"),
        ("HEADRACE_API_KEYS", "HEADRACE_AUTH_API_KEYS"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    assert refusal(environ={name: SECRET}) == f"{name} is not a setting; did you mean {nearest}?"


def test_a_section_is_no_variable() -> None:
    assert "HEADRACE_KAFKA is not a setting" in refusal(environ={"HEADRACE_KAFKA": "{}"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[kafka]\npartitons = 3", "kafka.partitons in FILE is not a setting; did you mean kafka.partitions?"),
        ("[kafak]\nx = 1", "kafak in FILE is not a setting; did you mean kafka?"),
        ("kafka = 3", "[kafka] in FILE must be a table of settings"),
        ("[kafka]\npartitions = 0", "kafka.partitions from FILE is '0', but must be a whole number from 1 to 9999"),
        ("[log]\nlevel = 'loud'", "log.level from FILE is 'loud', but must be one of debug, info, warning, error"),
        ("[streams]\nlease_s = 0", "streams.lease_s from FILE is '0', but must be a number above 0"),
        (
            "[dispatcher]\ncommit_interval_s = 9",
            "dispatcher.commit_interval_s from FILE is '9', but must be a number above 0 and of at most 5",
        ),
        ("[webhooks]\nretry_delays = ['x']", "webhooks.retry_delays from FILE is 'x', but must be numbers, "),
        ("[upstream]\nurls = ['ftp://x']", "upstream.urls from FILE is wrong: 'ftp://x' is no http:// or https:// URL"),
        ("[kafka\n", "the settings file FILE is not valid TOML: "),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(text)
    assert refusal(config=file).startswith(sentence.replace("FILE", str(file)))


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(config=missing) == f"the settings file {missing} cannot be read: No such file or directory"
    assert "cannot be read" in refusal(config=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'data_dir = "\xff"')
    assert "is not valid TOML" in refusal(config=tmp_path / "latin.toml")


def test_the_source_of_a_wrong_value_is_named() -> None:
    assert "from HEADRACE_INGRESS_PORT is 'x'" in refusal(environ={"HEADRACE_INGRESS_PORT": "x"})
    assert "from the command line is '-1'" in refusal(
        environ={"HEADRACE_INGRESS_PORT": "7"}, flags={"ingress.port": -1}
    )
    assert refusal(flags={"ingress.prt": 1}) == "ingress.prt is not a setting; did you mean ingress.port?"


@pytest.mark.parametrize("text", [f"[auth]\napi_keys = [{{k = '{SECRET}'}}]", f"[upstream]\napi_key = ['{SECRET}']"])
def test_a_wrong_secret_is_not_repeated(text: str, tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(text)
    sentence = refusal(config=file)
    assert SECRET not in sentence
    assert "api_key" in sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ok,sha256:12", "entry 2 begins with sha256: but is not followed by 64 hex digits"),
        ("ok,a b", "entry 2 must be printable ASCII without blanks, and not empty"),
    ],
)
def test_a_key_that_is_none_is_named_by_its_place(text: str, sentence: str) -> None:
    said = refusal(environ={"HEADRACE_AUTH_API_KEYS": text})
    assert said == f"auth.api_keys from HEADRACE_AUTH_API_KEYS is wrong: {sentence}"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"kafka.min_insync_replicas": 3, "kafka.replication_factor": 2}, "kafka.min_insync_replicas (3) must not be"),
        ({"streams.lease_s": 1}, "streams.lease_s (1) must not be below dispatcher.heartbeat_s (2)"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(flags: dict[str, object], words: str) -> None:
    assert refusal(flags=flags).startswith(words)


def test_a_keys_file_counts_as_keys() -> None:
    settings = load_settings(environ={}, flags={"ingress.host": "0.0.0.0", "auth.keys_file": "keys.toml"})
    assert api_keys(settings) == []


def test_secrets_are_hidden_in_the_printed_settings() -> None:
    settings = load_settings(environ={"HEADRACE_AUTH_API_KEYS": f"{SECRET},b", "HEADRACE_UPSTREAM_API_KEY": SECRET})
    printed = as_toml(settings)
    assert SECRET not in printed
    assert tomllib.loads(printed)["auth"]["api_keys"] == ["***", "***"]
    assert tomllib.loads(printed)["upstream"]["api_key"] == "***"
    assert SECRET not in repr(settings)
    assert list(secrets(settings)) == [SECRET, "b", SECRET]


def test_the_printed_settings_can_be_read_again(tmp_path: Path) -> None:
    settings = load_settings(environ={"HEADRACE_KAFKA_PARTITIONS": "48", "HEADRACE_WEBHOOKS_ALLOW_PRIVATE": "false"})
    (tmp_path / "printed.toml").write_text(as_toml(settings))
    assert load_settings(config=tmp_path / "printed.toml", environ={}) == settings


def test_overrides_reach_a_child_by_its_environment() -> None:
    flags = {
        "ingress.port": 9000,
        "ingress.auto_register": False,
        "upstream.urls": ["http://one/v1", "http://two/v1"],
        "upstream.api_key": SecretStr(SECRET),
        "auth.api_keys": [SecretStr("first"), SecretStr("second")],
        "data_dir": Path("/tmp/x y"),  # noqa: S108  # never opened
        "webhooks.retry_delays": (0.5, 1),
        "log.level": None,
    }
    passed = environment(flags)
    assert passed["HEADRACE_AUTH_API_KEYS"] == "first,second"
    assert "HEADRACE_LOG_LEVEL" not in passed
    assert load_settings(environ=passed) == load_settings(environ={}, flags=flags)


def test_an_override_that_no_variable_can_carry_is_refused() -> None:
    with pytest.raises(ConfigError, match="without commas"):
        environment({"auth.api_keys": ["a,b"]})
    with pytest.raises(ConfigError, match="did you mean"):
        environment({"auth.api_key": ["a"]})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_opens_with_the_local_key(host: str) -> None:
    assert is_loopback(host)
    settings = load_settings(environ={"HEADRACE_INGRESS_HOST": host})
    assert [key.get_secret_value() for key in api_keys(settings)] == [LOCAL_KEY]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_any_other_address_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="HEADRACE_AUTH_API_KEYS"):
        api_keys(load_settings(environ={}, flags={"ingress.host": host}))
    given = load_settings(environ={}, flags={"ingress.host": host, "auth.api_keys": [SECRET]})
    assert [key.get_secret_value() for key in api_keys(given)] == [SECRET]


def test_configured_keys_replace_the_local_one() -> None:
    settings = load_settings(environ={"HEADRACE_AUTH_API_KEYS": SECRET})
    assert [key.get_secret_value() for key in api_keys(settings)] == [SECRET]
