"""`headrace up`: the whole stack on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.options import config_option, reported


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on; any but loopback needs a key.  [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API; 0 picks a free one.  [8080]")
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Records, logs, stack.json.  [.headrace]"
)
@config_option
@click.option("--kafka", metavar="HOST:PORT", help="Use this cluster instead of an embedded broker.")
@click.option("--upstream", "upstreams", multiple=True, metavar="URL", help="Model server, ending in /v1; repeatable.")
@click.option("--no-model", is_flag=True, help="Start no local model.")
@click.option(
    "--api-key", "api_keys", multiple=True, metavar="KEY", help="Accept this API key; repeatable.  [hr-local]"
)
def up(
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    config: Path | None,
    kafka: str | None,
    upstreams: tuple[str, ...],
    no_model: bool,
    api_keys: tuple[str, ...],
) -> None:
    """Start a broker, a model, and one of each role; keep them running until Ctrl-C.

    State is persisted in the data directory. DATA_DIR/stack.json lists processes and ports, DATA_DIR/logs contains the
    log of each process. Flags override HEADRACE_ variables, which override headrace.toml.
    """
    from compose.local.launch import run_stack  # noqa: PLC0415 - a third of a second that --help need not pay
    from compose.local.plan import UpOptions  # noqa: PLC0415

    flags = UpOptions(
        host=host,
        port=port,
        data_dir=data_dir,
        config=config,
        kafka=kafka,
        upstreams=upstreams,
        no_model=no_model,
        api_keys=api_keys,
    )
    with reported():
        run_stack(flags, say=_say)


def _say(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:  # the reader of stdout has gone, as in `headrace up | head`: continue to serve
        return
