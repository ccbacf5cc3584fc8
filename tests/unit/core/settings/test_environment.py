"""Variables that Kubernetes makes for a Service, and values that stand in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from core.settings.catalog import Variable
from core.settings.environment import FILE, FILE_BYTES, service_variables
from core.settings.loader import load_settings, variables
from core.settings.models import Settings
from tests.support.config import refusal

SECRET = "sk-very-secret-1"
SECRETS = [setting for setting in variables() if "secret" in setting.type]

pytestmark = pytest.mark.usefixtures("empty_folder")


def made_for(service: str, *, address: str = "10.96.7.4", port: int = 8080, protocol: str = "tcp") -> dict[str, str]:
    """Return what Kubernetes puts into every pod of a namespace for a Service with one port."""
    name = service.upper().replace("-", "_")
    url = f"{protocol}://{f'[{address}]' if ':' in address else address}:{port}"
    at = f"{name}_PORT_{port}_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_HTTP_API": str(port),
        f"{name}_PORT": url,
        at: url,
        f"{at}_PROTO": protocol,
        f"{at}_PORT": str(port),
        f"{at}_ADDR": address,
    }


SERVICES: Mapping[str, dict[str, str]] = {
    "plain": made_for("headrace"),
    "with a setting's name": made_for("headrace-ingress"),
    "with the name of a setting of its own": made_for("headrace-metrics"),
    "whose name ends like the variables": made_for("headrace-service"),
    "whose name is two of them": made_for("headrace-service-port"),
    "of a release": made_for("headrace-prod-2-streams-online", port=65535),
    "of IPv6": made_for("headrace", address="fd00:10:96::a"),
    "of UDP": made_for("headrace-dns", protocol="udp", port=53),
    "of SCTP": made_for("headrace-x", protocol="sctp", port=1),
}


@pytest.mark.parametrize("made", SERVICES.values(), ids=SERVICES)
def test_what_kubernetes_makes_for_a_service_is_passed_over(made: dict[str, str]) -> None:
    assert load_settings(environ=made) == Settings()
    assert service_variables(
        made | {"PATH": "/bin", "HEADRACE_DATA_DIR": "x", "KAFKA_PORT": "tcp://10.0.0.1:9092"}
    ) == (sorted(made))


def test_a_setting_whose_name_a_service_has_too_still_works() -> None:
    made = made_for("headrace-ingress") | made_for("headrace-metrics") | made_for("headrace-local-broker")
    real = {"HEADRACE_INGRESS_PORT": "9000", "HEADRACE_METRICS_PORT": "9100", "HEADRACE_LOCAL_BROKER_PORT": "9200"}
    settings = load_settings(environ=made | real)
    assert (settings.ingress.port, settings.metrics_port, settings.local.broker_port) == (9000, 9100, 9200)
    flagged = load_settings(environ=made, flags={"ingress.port": 9000})
    assert (flagged.ingress.port, flagged.metrics_port) == (9000, 0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEADRACE_INGRES_PORT", "9000", "did you mean HEADRACE_INGRESS_PORT?"),
        ("HEADRACE_METRIC_PORT", "9000", "did you mean HEADRACE_METRICS_PORT?"),
        ("HEADRACE_PORT", "8080", "is not a setting"),
        ("HEADRACE_PORT", "", "is not a setting"),
        ("HEADRACE_PORT", "http://10.0.0.1:80", "is not a setting"),
        ("HEADRACE_PORT", "tcp://headrace:80", "is not a setting"),
        ("HEADRACE_PORT", "tcp://10.0.0.1:99999", "is not a setting"),
        ("HEADRACE_PORT", "tcp://10.0.0.1", "is not a setting"),
        ("HEADRACE_SERVICE_HOST", "headrace.example", "is not a setting"),
        ("HEADRACE_SERVICE_PORT", "http", "is not a setting"),
        ("HEADRACE_INGRESS_HOSTS", "10.0.0.1", "did you mean HEADRACE_INGRESS_HOST?"),
        ("HEADRACE_PORT_8080_TCP_PROTO", "quic", "is not a setting"),
    ],
)
def test_a_name_or_a_value_of_another_form_is_refused(name: str, value: str, said: str) -> None:
    assert said in refusal(environ={name: value})


def test_a_wrong_value_of_a_real_setting_is_refused() -> None:
    assert "from HEADRACE_INGRESS_PORT is 'tcp://here:80'" in refusal(
        environ={"HEADRACE_INGRESS_PORT": "tcp://here:80"}
    )


@pytest.mark.parametrize("setting", SECRETS, ids=[setting.dotted for setting in SECRETS])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_secret_may_stand_in_a_file(setting: Variable, end: str, tmp_path: Path) -> None:
    key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    value = {"webhooks.secret": key, "webhooks.tenant_secrets": f"key-one={key}"}.get(setting.dotted, SECRET)
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbf" + (value + end).encode())
    by_file = load_settings(environ={setting.name + FILE: str(file), setting.name: ""})
    assert by_file == load_settings(environ={setting.name: value})
    assert by_file != Settings()


def test_any_other_setting_may_and_only_one_line_end_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("::1\n")
    (tmp_path / "queues").write_text('{"chat": {"timeout_s": 5}}\n')
    (tmp_path / "password").write_text(" two ends \n\n")
    found = load_settings(
        environ={
            "HEADRACE_INGRESS_HOST_FILE": "host",
            "HEADRACE_QUEUES_FILE": str(tmp_path / "queues"),
            "HEADRACE_KAFKA_REGISTRY_PASSWORD_FILE": str(tmp_path / "password"),
            "HEADRACE_UPSTREAM_API_KEY_FILE": "",
        }
    )
    assert (found.ingress.host, found.queues["chat"].timeout_s) == ("::1", 5)
    password = found.kafka.registry_password
    assert password is not None
    assert password.get_secret_value() == " two ends \n"
    assert found.upstream.api_key is None


def test_a_setting_whose_own_name_ends_so_is_no_file_of_another() -> None:
    assert load_settings(environ={"HEADRACE_AUTH_KEYS_FILE": "keys.toml"}).auth.keys_file == Path("keys.toml")


def test_a_file_and_a_value_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    both = {"HEADRACE_UPSTREAM_API_KEY": SECRET, "HEADRACE_UPSTREAM_API_KEY_FILE": str(tmp_path / "key")}
    said = "HEADRACE_UPSTREAM_API_KEY and HEADRACE_UPSTREAM_API_KEY_FILE are both set; only one of them may be"
    assert refusal(environ=both) == said
    assert load_settings(
        environ={"HEADRACE_UPSTREAM_API_KEY_FILE": str(tmp_path / "key")}, flags={"upstream.api_key": "x"}
    )


def test_a_service_and_a_file_are_not(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("9000\n")
    environ = made_for("headrace-ingress") | {"HEADRACE_INGRESS_PORT_FILE": str(tmp_path / "port")}
    assert load_settings(environ=environ).ingress.port == 9000


def test_a_file_that_cannot_be_used_is_one_sentence_without_its_content(tmp_path: Path) -> None:
    name = "HEADRACE_AUTH_API_KEYS_FILE"
    whole = tmp_path / "whole"

    def said(content: bytes) -> str:
        whole.write_bytes(content)
        return refusal(environ={name: str(whole)}).replace(str(whole), "PATH")

    assert refusal(environ={name: str(tmp_path / "none")}) == (
        f"the file {tmp_path / 'none'} that {name} names cannot be read: No such file or directory"
    )
    assert "cannot be read: Is a directory" in refusal(environ={name: str(tmp_path)})
    assert "cannot be read" in refusal(environ={name: "a\0b"})
    assert said(b"") == said(b"\n") == said(b"\xef\xbb\xbf\n") == f"the file PATH that {name} names is empty"
    assert said(b"\xff") == f"the file PATH that {name} names is not UTF-8 text"
    assert said(b"x" * (FILE_BYTES + 1)) == f"the file PATH that {name} names is larger than {FILE_BYTES} bytes"
    assert said(b"two words") == (
        f"auth.api_keys from {name} is wrong: entry 1 must be printable ASCII without blanks, and not empty"
    )
    for other in ("UPSTREAM_URLS", "INGRESS_PORT", "LOG_LEVEL", "QUEUES", "WEBHOOKS_SECRET"):
        whole.write_text(SECRET)
        sentence = refusal(environ={f"HEADRACE_{other}_FILE": str(whole)})
        assert f"HEADRACE_{other}_FILE" in sentence
        assert SECRET not in sentence


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("HEADRACE_UPSTREAM_API_KEYS_FILE", "HEADRACE_UPSTREAM_API_KEY_FILE"),
        ("HEADRACE_WEBHOOK_SECRET_FILE", "HEADRACE_WEBHOOKS_SECRET_FILE"),
        ("HEADRACE_AUTH_KEY_FILE", "HEADRACE_AUTH_KEYS_FILE"),
    ],
)
def test_a_misspelt_name_of_a_file_is_refused(wrong: str, meant: str) -> None:
    assert refusal(environ={wrong: "x"}) == f"{wrong} is not a setting; did you mean {meant}?"
