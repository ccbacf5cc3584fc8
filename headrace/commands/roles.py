"""`headrace ingress|streams|dispatcher`: one role as a process, settings from file, environment and flags."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click

from compose.local.process import ending_with_parent
from core.process import run_role
from core.settings.loader import load_settings
from core.settings.models import Settings
from headrace.options import config_option, reported
from schemas.topics import LEVELS

COMPONENTS = ("all", "inference", "webhooks", "batches")
metrics_option = click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Port of /metrics, /livez and /readyz; 0 is off.  [0]"
)


def _settings(config: Path | None, flags: dict[str, object]) -> Settings:
    with reported():
        return load_settings(config=config, flags={name: value for name, value in flags.items() if value is not None})


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on; any but loopback needs a key.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [8080]")
@config_option
def ingress(host: str | None, port: int | None, config: Path | None) -> None:
    """Run the HTTP API: accepts tasks, serves blocking and streaming requests and queries.

    Any number may run against one Kafka cluster, behind a load balancer.
    """
    from ingress.main import serve  # noqa: PLC0415 - a role loads only its own packages

    settings = _settings(config, {"ingress.host": host, "ingress.port": port})
    sys.exit(run_role("ingress", settings, lambda stop: serve(settings, stop)))


@click.command()
@click.option("--level", type=click.Choice(LEVELS), help="Level to schedule; without it one process for each level.")
@metrics_option
@config_option
def streams(level: str | None, metrics_port: int | None, config: Path | None) -> None:
    """Run the scheduler of a level: the single writer of task states.

    Any number may run against one Kafka cluster; those of one level share its partitions.
    """
    settings = _settings(config, {"metrics_port": metrics_port})
    if level is None:
        sys.exit(_both_levels(config, metrics_port))
    from streams.main import serve  # noqa: PLC0415 - a role loads only its own packages

    number = LEVELS.index(level)
    sys.exit(run_role(f"streams-{level}", settings, lambda stop: serve(settings, stop, level=number)))


@click.command()
@click.option(
    "--component",
    type=click.Choice(COMPONENTS),
    help="Run only one component: inference, webhooks or batches.  [all]",
)
@click.option("--only", type=click.Choice(COMPONENTS), hidden=True)
@metrics_option
@config_option
def dispatcher(component: str | None, only: str | None, metrics_port: int | None, config: Path | None) -> None:
    """Run the inference consumers, which call the model servers, the webhook sender, and the batch service.

    Any number may run against one Kafka cluster; each takes only tasks that it has capacity for.
    """
    from dispatcher.main import serve  # noqa: PLC0415 - a role loads only its own packages

    if component is not None and only is not None:
        raise click.UsageError("--only is the old name of --component; give one of them")
    settings = _settings(
        config, {"dispatcher.component": component, "dispatcher.only": only, "metrics_port": metrics_port}
    )
    sys.exit(run_role("dispatcher", settings, lambda stop: serve(settings, stop)))


def _both_levels(config: Path | None, metrics_port: int | None) -> int:
    """Run one process per level; when one ends the other is stopped, and the worse exit code is returned."""
    options = ["--config", str(config)] if config else []
    children = []
    for number, level in enumerate(LEVELS):
        port = ["--metrics-port", str(metrics_port + number)] if metrics_port else []
        command = [sys.executable, "-m", "headrace.main", "streams", "--level", level, *options, *port]
        children.append(subprocess.Popen(ending_with_parent(command)))

    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if stopping:
            return
        stopping = True
        # SIGTERM even after a Ctrl-C, which a terminal sends to the children too: the same signal twice ends them
        # immediately, without a commit.
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    ended, status = os.wait()
    stop()
    codes = [child.wait() for child in children if child.pid != ended]
    return max(abs(os.waitstatus_to_exitcode(status)), *map(abs, codes))
