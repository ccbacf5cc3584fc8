"""`headrace doctor`: what is stuck, why, and the next step; asks the ingress, or Kafka when the ingress is down."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import click

from core.diagnostics.collect import survey
from core.diagnostics.facts import Finding
from core.diagnostics.rules import findings
from core.kafka.cluster import Cluster
from headrace.client import AdminClient, Unreachable
from headrace.commands.batches import api_options, flags_again
from headrace.options import config_option, reported, settings_here
from headrace.output import json_output

DOWN_STEP = "start `headrace ingress`, read its log, or name another with --url"

_OVER_HTTP = re.compile(r"`(headrace (?:queues|workers|dead-letters|tasks|batches) [^`]*)`")
"""Commands in a step that need the --url of this one."""


@click.command()
@json_output
@api_options
@config_option
def doctor(as_json: bool, url: str, api_key: str, config: Path | None) -> None:
    """Report what is stuck, why, and the next step; exit code 1 when there is a problem.

    It observes the cluster for 3 to 10 s. When the ingress does not answer, it reports that and asks Kafka, with the
    settings of this machine (kafka.bootstrap, kafka.topic_prefix).
    """
    with reported():
        try:
            with AdminClient(url, api_key) as api:
                result = api.get("doctor")
        except Unreachable as error:
            result = _by_kafka(error.message, config)
    again = flags_again()
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        for one in result["data"]:
            mark = click.style("problem", fg="red") if one["weight"] == "problem" else "note"
            step = _OVER_HTTP.sub(lambda found: f"`{found[1]}{again}`", one["next_step"])
            click.echo(f"{mark}  {one['what']}\n         next: {step}")
        if result["healthy"]:
            click.echo("Nothing is stuck.")
    if not result["healthy"]:
        raise SystemExit(1)


def _by_kafka(why: str, config: Path | None) -> dict[str, Any]:
    settings = settings_here(config)
    facts = asyncio.run(survey(settings, Cluster(settings, name="headrace-doctor")))
    down = Finding("problem", "ingress_down", "ingress", why, DOWN_STEP)
    found = [down, *findings(facts)]
    return {
        "object": "doctor",
        "healthy": False,
        "watched_s": round(facts.watched_s, 1),
        "data": [one._asdict() for one in found],
    }
