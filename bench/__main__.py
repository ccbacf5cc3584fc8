"""`make bench`, or `python -m bench [scheduler pipeline accept latency mirror rebuild replay] [--tasks N]`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import click
import orjson
import uvloop

from bench import measures
from bench.batches import batches
from bench.mirror import mirror
from bench.rebuild import rebuild
from bench.replay import replay
from bench.report import Report, Row
from bench.webhooks import webhooks

MEASURES: Mapping[str, tuple[Callable[[int], Awaitable[list[Row]]], int]] = {
    "scheduler": (measures.scheduler, 20_000),
    "pipeline": (measures.pipeline, 20_000),
    "accept": (measures.accept, 20_000),
    "latency": (measures.latency, 400),
    "mirror": (mirror, 400),
    "rebuild": (rebuild, 100_000),
    "replay": (replay, 50_000),
    "webhooks": (webhooks, 5_000),
    "batches": (batches, 50_000),
}
OUT = Path(__file__).parent / "out" / "bench.json"


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*MEASURES]))
@click.option("--tasks", type=click.IntRange(min=20), help="Tasks per measurement; each has a default of its own.")
def main(names: tuple[str, ...], tasks: int | None) -> None:
    """Measure on this machine and print a table; the figures are also written to bench/out/bench.json.

    Every measurement starts what it needs and nothing else. Compare figures of one run only: machines differ, and the
    same machine differs from hour to hour.
    """
    report = Report()
    uvloop.run(measure(report, names or tuple(MEASURES), tasks))
    click.echo(report.render())
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))


async def measure(report: Report, names: tuple[str, ...], tasks: int | None) -> None:
    """Run the measurements one after the other."""
    for name in names:
        function, default = MEASURES[name]
        click.echo(f"measuring {name} …", err=True)
        for row in await asyncio.wait_for(function(tasks or default), 600):
            report.add(row)


if __name__ == "__main__":
    main()
