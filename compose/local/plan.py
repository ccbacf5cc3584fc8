"""Plan a stack: from flags and settings to ports and child processes, before anything is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import core
from compose.local.broker import EmbeddedBroker
from compose.local.broker_config import Node
from compose.local.errors import LocalStackError
from compose.local.model import NAME as MODEL
from compose.local.ports import LOOPBACK, check_listen, free_port
from compose.local.stack import StackFolder
from compose.local.supervisor import Child
from core.settings.environment import FILE
from core.settings.loader import LOCAL_KEY, api_keys, environment, is_loopback, load_settings
from core.settings.models import Settings

ROLES: Mapping[str, tuple[str, ...]] = {
    "ingress": ("ingress",),
    "streams-online": ("streams", "--level", "online"),
    "streams-offline": ("streams", "--level", "offline"),
    "dispatcher": ("dispatcher",),
}
# Stop order: first the roles that accept work, then the schedulers, then broker and model.
STOP_STAGES = {"ingress": 0, "dispatcher": 0, "streams-online": 1, "streams-offline": 1, "model": 2, "broker": 2}
WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """Options of `headrace up`; None and empty mean not given."""

    host: str | None = None
    port: int | None = None
    data_dir: Path | None = None
    config: Path | None = None
    kafka: str | None = None
    upstreams: tuple[str, ...] = ()
    no_model: bool = False
    api_keys: tuple[str, ...] = ()

    def settings(self) -> dict[str, object]:
        """Return the flags as dotted settings."""
        given = {
            "ingress.host": self.host,
            "ingress.port": self.port,
            "data_dir": self.data_dir,
            "kafka.bootstrap": self.kafka,
            "upstream.urls": list(self.upstreams) or None,
            "auth.api_keys": list(self.api_keys) or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A stack that could start."""

    settings: Settings
    folder: StackFolder
    url: str
    broker: EmbeddedBroker | None
    children: tuple[Child, ...]  # without the broker, whose command is prepared later
    environ: Mapping[str, str]
    model_port: int | None
    metrics: Mapping[str, str]
    example_key: str
    example_model: str


def read_settings(flags: UpOptions) -> Settings:
    """Load and validate the settings before any file or process is created."""
    settings = load_settings(config=flags.config, flags=flags.settings())
    api_keys(settings)
    host, port = settings.ingress.host, settings.ingress.port
    try:
        if port:
            check_listen(host, port)
    except OSError as error:
        raise LocalStackError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from error
    return settings


def make_plan(flags: UpOptions, settings: Settings, folder: StackFolder) -> Plan:
    """Choose ports and define the child processes."""
    # A value from the file or the environment counts like a flag.
    with_broker = "bootstrap" not in settings.kafka.model_fields_set
    with_model = not flags.no_model and "urls" not in settings.upstream.model_fields_set
    wanted = {"broker": settings.local.broker_port, "controller": 0} if with_broker else {}
    wanted |= {"model": settings.local.model_port} if with_model else {}
    ports = folder.ports(wanted | {name: 0 for name in ROLES if name != "ingress"})

    overrides = flags.settings() | {"data_dir": folder.path, "ingress.port": settings.ingress.port or free_port()}
    if with_broker:
        overrides["kafka.bootstrap"] = f"{LOOPBACK}:{ports['broker']}"
    if with_model:
        overrides["upstream.urls"] = [f"http://{LOOPBACK}:{ports['model']}/v1"]
    effective = load_settings(config=flags.config, flags=overrides)

    return Plan(
        settings=effective,
        folder=folder,
        url=_url(effective),
        broker=_broker(effective, folder, ports) if with_broker else None,
        children=tuple(_children(flags, overrides, folder, ports, with_model=with_model)),
        environ=_environ({}),
        model_port=ports["model"] if with_model else None,
        metrics={name: f"http://{LOOPBACK}:{port}/metrics" for name, port in ports.items() if name in ROLES},
        example_key=_example_key(flags, effective),
        example_model=MODEL if with_model else "YOUR_MODEL",
    )


def _broker(settings: Settings, folder: StackFolder, ports: Mapping[str, int]) -> EmbeddedBroker:
    return EmbeddedBroker(
        folder.path / "kafka",
        node=Node(id=1, port=ports["broker"], controller_port=ports["controller"]),
        heap_mb=settings.local.broker_heap_mb,
        max_message_bytes=settings.kafka.max_message_bytes,
    )


def _children(
    flags: UpOptions,
    overrides: Mapping[str, object],
    folder: StackFolder,
    ports: Mapping[str, int],
    *,
    with_model: bool,
) -> list[Child]:
    python = [sys.executable, "-P", "-m"]  # -P: a folder `core` in the working directory must not be imported
    config = ["--config", str(flags.config.absolute())] if flags.config else []
    children = []
    if with_model:
        command = [*python, "compose.local.model", "--port", str(ports["model"])]
        children.append(_child("model", command, _environ({}), folder))
    for name, arguments in ROLES.items():
        # The ingress serves its metrics on its own port.
        metrics = {"metrics_port": ports[name], "metrics_host": LOOPBACK} if name in ports else {"metrics_port": 0}
        environ = _environ({**overrides, **metrics})
        children.append(_child(name, [*python, "headrace.main", *arguments, *config], environ, folder))
    return children


def _child(name: str, argv: list[str], environ: Mapping[str, str], folder: StackFolder) -> Child:
    return Child(name=name, argv=argv, env=environ, log=folder.log(name), stop_stage=STOP_STAGES[name])


def _environ(overrides: Mapping[str, object]) -> dict[str, str]:
    """Return the environment of a child: the current one, the settings of this stack, and the path of this code."""
    root = str(Path(core.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    ours = environment(overrides)
    # A setting must not be given both by its variable and by NAME_FILE.
    inherited = {name: value for name, value in os.environ.items() if name.removesuffix(FILE) not in ours}
    return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **ours}


def _url(settings: Settings) -> str:
    host = WILDCARDS.get(settings.ingress.host, settings.ingress.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.ingress.port}"


def _example_key(flags: UpOptions, settings: Settings) -> str:
    """Return the key to print: one given as an option, or the default key; never one from a file."""
    opened = settings.auth.api_keys or settings.auth.keys_file is not None
    if not opened and is_loopback(settings.ingress.host):
        return LOCAL_KEY
    return next((key for key in flags.api_keys if not key.startswith("sha256:")), "YOUR_KEY")
