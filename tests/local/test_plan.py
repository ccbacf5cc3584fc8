from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from compose.local.plan import Plan, UpOptions, make_plan, read_settings
from compose.local.stack import StackFolder
from core.errors import ConfigError
from core.settings.loader import load_settings
from tests.support.ports import free_port

pytestmark = pytest.mark.usefixtures("empty_folder")


def plan_of(flags: UpOptions) -> Plan:
    settings = read_settings(flags)
    folder = StackFolder(settings.data_dir)
    with folder.owned():
        return make_plan(flags, settings, folder)


def roles(plan: Plan) -> list[str]:
    return [child.name for child in plan.children]


def test_everything_is_started_by_default() -> None:
    port = free_port()
    plan = plan_of(UpOptions(port=port))
    assert plan.broker is not None
    assert roles(plan) == ["model", "ingress", "streams-online", "streams-offline", "dispatcher"]
    assert plan.url == f"http://127.0.0.1:{port}"
    assert plan.settings.kafka.bootstrap == plan.broker.bootstrap
    assert plan.settings.upstream.urls == [f"http://127.0.0.1:{plan.model_port}/v1"]
    assert plan.example_key == "hr-local"
    for child in plan.children[1:]:
        own = load_settings(environ=child.env)
        assert own.kafka == plan.settings.kafka
        assert own.upstream == plan.settings.upstream
        assert own.ingress == plan.settings.ingress
        assert own.data_dir == plan.folder.path
        assert own.data_dir.is_absolute()


def test_a_flag_takes_the_place_of_a_file_that_a_variable_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("sk-of-the-file\n")
    monkeypatch.setenv("HEADRACE_AUTH_API_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("HEADRACE_INGRESS_PORT", "tcp://10.96.7.4:8080")  # as Kubernetes makes it for a Service
    for given, wanted in (((), "sk-of-the-file"), (("sk-of-the-flag",), "sk-of-the-flag")):
        plan = plan_of(UpOptions(port=free_port(), api_keys=given))
        for child in plan.children[1:]:
            [key] = load_settings(environ=child.env).auth.api_keys
            assert key.get_secret_value() == wanted


def test_each_role_has_metrics_of_its_own() -> None:
    plan = plan_of(UpOptions(port=free_port()))
    ports = {child.name: load_settings(environ=child.env).metrics_port for child in plan.children[1:]}
    assert ports.pop("ingress") == 0, "it serves them on its own port"
    assert {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()} == plan.metrics
    assert len(set(ports.values())) == len(ports)


def test_streams_runs_a_process_for_each_level() -> None:
    plan = plan_of(UpOptions(port=free_port()))
    commands = {child.name: list(child.argv) for child in plan.children}
    assert commands["streams-online"][-3:] == ["streams", "--level", "online"]
    assert commands["streams-offline"][-3:] == ["streams", "--level", "offline"]


def test_keys_are_on_no_command_line() -> None:
    plan = plan_of(UpOptions(port=free_port(), api_keys=("first-key", "second-key")))
    assert not [child for child in plan.children if "first-key" in " ".join(child.argv)]
    for child in plan.children[1:]:
        keys = [key.get_secret_value() for key in load_settings(environ=child.env).auth.api_keys]
        assert keys == ["first-key", "second-key"]
    assert plan.example_key == "first-key"


def test_a_cluster_and_a_model_server_that_are_named_are_used() -> None:
    plan = plan_of(UpOptions(port=free_port(), kafka="k1:9092,k2:9092", upstreams=("http://a/v1", "http://b/v1")))
    assert plan.broker is None
    assert plan.model_port is None
    assert "model" not in roles(plan)
    assert plan.settings.kafka.bootstrap == "k1:9092,k2:9092"
    assert plan.settings.upstream.urls == ["http://a/v1", "http://b/v1"]


def test_the_environment_and_the_file_count_like_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", "k1:9092")
    config = tmp_path / "other.toml"
    config.write_text('[upstream]\nurls = ["http://a/v1"]\n[auth]\napi_keys = ["from-the-file"]\n')
    plan = plan_of(UpOptions(port=free_port(), config=config))
    assert plan.broker is None
    assert "model" not in roles(plan)
    assert plan.example_key == "YOUR_KEY", "a key out of a file is not printed"
    assert list(plan.children[0].argv[-2:]) == ["--config", str(config)]


def test_no_model_leaves_the_upstream_to_the_settings() -> None:
    plan = plan_of(UpOptions(port=free_port(), no_model=True))
    assert "model" not in roles(plan)
    assert plan.settings.upstream.urls == load_settings(environ={}).upstream.urls


def test_beyond_loopback_a_key_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 .*an API key is needed: give --api-key"):
        read_settings(UpOptions(host="0.0.0.0", port=0))
    plan = plan_of(UpOptions(host="0.0.0.0", port=0, api_keys=("a-key",)))
    assert plan.url == f"http://127.0.0.1:{plan.settings.ingress.port}", "an address that can be opened"
    assert plan.settings.ingress.port


def test_two_stacks_share_no_port(tmp_path: Path) -> None:
    first = ports_of(plan_of(UpOptions(port=free_port(), data_dir=tmp_path / "a")))
    with ExitStack() as running:
        for port in first:
            running.enter_context(socket.create_server(("127.0.0.1", port)))
        second = ports_of(plan_of(UpOptions(port=free_port(), data_dir=tmp_path / "b")))
    assert len({*first, *second}) == len(first) + len(second)


def ports_of(plan: Plan) -> list[int]:
    assert plan.broker
    assert plan.model_port
    metrics = [urlsplit(url).port or 0 for url in plan.metrics.values()]
    return [plan.broker.node.port, plan.broker.node.controller_port, plan.model_port, *metrics]
