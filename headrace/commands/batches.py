"""`headrace batches`: run thousands of requests from a file, over HTTP."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from core.settings.loader import LOCAL_KEY
from headrace import batch_display as display
from headrace.client import BatchClient
from headrace.options import key_option, reported
from headrace.output import Output, json_output, output_option

F = TypeVar("F", bound=Callable[..., Any])
LOCAL_URL = "http://127.0.0.1:8080"
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations")
INTERRUPTED = 130


def api_options(command: F) -> F:
    """Add --url and --api-key."""
    key = key_option(
        "--api-key",
        envvar="HEADRACE_API_KEY",
        default=LOCAL_KEY,
        metavar="KEY",
        help=f"API key; or HEADRACE_API_KEY.  [{LOCAL_KEY}]",
    )
    url = click.option(
        "--url",
        envvar="HEADRACE_URL",
        default=LOCAL_URL,
        metavar="URL",
        help=f"URL of the ingress; or HEADRACE_URL.  [{LOCAL_URL}]",
    )
    return url(key(command))


def flags_again() -> str:
    """Return the --url option for a suggested command; empty when the environment sets it."""
    context = click.get_current_context()
    if context.get_parameter_source("url") is not ParameterSource.COMMANDLINE:
        return ""
    return f" --url {shlex.quote(context.params['url'])}"


file_option = click.option(
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write the results to this file instead of printing them.",
)


@click.group()
def batches() -> None:
    """Run thousands of requests from a file, and fetch the results.

    A file contains one request per line, each with an id of your choice:

    \b
      {"custom_id": "a", "body": {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}}

    Then, for the local stack (any other: --url and --api-key):

    \b
      headrace batches submit requests.jsonl --model smollm2 --wait --output answers.jsonl

    Every result carries its custom_id; the order differs from the file.
    """


@batches.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", metavar="NAME", help="Model of every request; overrides the model of the lines.")
@click.option(
    "--endpoint",
    type=click.Choice(ENDPOINTS),
    default=ENDPOINTS[0],
    show_default=True,
    help="Endpoint of the requests.",
)
@click.option("--queue", metavar="NAME", help="Queue of the requests; the server's setting unless given.")
@click.option("--window", default="24h", show_default=True, metavar="TIME", help="Completion window, 24h to 336h.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Metadata of the batch; repeatable.")
@click.option("--wait", is_flag=True, help="Show the progress until the batch has ended, then print the results.")
@file_option
@json_output
@api_options
def submit(
    file: Path,
    model: str | None,
    endpoint: str,
    queue: str | None,
    window: str,
    metadata: tuple[str, ...],
    wait: bool,
    target: Path | None,
    as_json: bool,
    url: str,
    api_key: str,
) -> None:
    """Upload FILE and run its requests.

    With --wait (or --output) it waits until the batch has ended and prints the results, one JSON object per line;
    failed requests go to a second file next to the output. The exit code is 1 when the batch failed, expired or was
    cancelled. Ctrl-C leaves the batch running.
    """
    wanted: dict[str, Any] = {
        "endpoint": endpoint,
        "completion_window": window,
        "metadata": dict(map(_pair, metadata)),
    }
    if model is not None:
        wanted["replace"] = {"model": model}
    with reported(), _client(url, api_key) as client:
        batch = client.create(wanted | {"input_file_id": client.upload(file)}, queue=queue)
        if not wait and target is None:
            if as_json:
                _print(batch)
                return
            look = f"headrace batches show {batch['id']}{flags_again()}"
            click.echo(f"{batch['id']} is accepted. Check its progress: {look}")
            return
        display.say(f"{batch['id']} is accepted.")
        batch = _followed(client, batch["id"])
        _fetch(client, batch, target, quiet=as_json)
        if as_json:
            _print(batch)
        display.say(display.ended(batch))
        for fault in display.faults(batch):
            display.say(f"  {fault}")
    if batch["status"] != "completed":
        raise click.exceptions.Exit(1)


@batches.command(name="list")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Maximum number of batches."
)
@output_option
@api_options
def list_(limit: int, output: Output, url: str, api_key: str) -> None:
    """List batches, newest first."""
    with reported(), _client(url, api_key) as client:
        found = list(client.list(limit))
    if output == "json":
        _print(found)
    else:
        display.show_batches(found, output=output)


@batches.command()
@click.argument("batch_id")
@json_output
@api_options
def show(batch_id: str, as_json: bool, url: str, api_key: str) -> None:
    """Show the state of a batch, and the errors of its file."""
    with reported(), _client(url, api_key) as client:
        batch = client.get(batch_id)
    if as_json:
        _print(batch)
        return
    click.echo("\n".join([display.words(batch), *display.faults(batch)]))


@batches.command()
@click.argument("batch_id")
@json_output
@api_options
def cancel(batch_id: str, as_json: bool, url: str, api_key: str) -> None:
    """Cancel a batch: no more of its requests run; finished ones keep their results."""
    with reported(), _client(url, api_key) as client:
        batch = client.cancel(batch_id)
    if as_json:
        _print(batch)
    else:
        click.echo(display.ended(batch))


@batches.command()
@click.argument("batch_id")
@click.option("--errors", is_flag=True, help="The failed requests instead of the results.")
@file_option
@api_options
def output(batch_id: str, errors: bool, target: Path | None, url: str, api_key: str) -> None:
    """Print the results of a batch that are available so far; also while it runs."""
    with reported(), _client(url, api_key) as client:
        if target is None:
            client.download(batch_id, errors=errors, out=click.get_binary_stream("stdout"))
        else:
            _save(client, batch_id, target, errors=errors)


@contextmanager
def _client(url: str, key: str) -> Iterator[BatchClient]:
    client = BatchClient(url, key)
    try:
        yield client
    finally:
        client.close()


def _followed(client: BatchClient, batch_id: str) -> dict[str, Any]:
    try:
        return display.follow(client.follow(batch_id))
    except KeyboardInterrupt:
        rest = f"{batch_id}{flags_again()}"
        display.say(
            f"{batch_id} continues. Check it: headrace batches show {rest}; stop it: headrace batches cancel {rest}"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None


def _fetch(client: BatchClient, batch: dict[str, Any], target: Path | None, *, quiet: bool) -> None:
    """Fetch the results: to a file, with failed requests in a second one, or to standard output."""
    batch_id, failed = batch["id"], batch["error_file_id"] is not None
    if target is None:
        if not quiet and batch["output_file_id"] is not None:
            client.download(batch_id, errors=False, out=click.get_binary_stream("stdout"))
        if failed:
            display.say(f"Failed requests: headrace batches output {batch_id} --errors{flags_again()}")
        return
    _save(client, batch_id, target, errors=False)
    if failed:
        beside = target.with_name(f"{target.stem}.errors{target.suffix}")
        _save(client, batch_id, beside, errors=True)
        display.say(f"Failed requests are in {beside}.")


def _save(client: BatchClient, batch_id: str, target: Path, *, errors: bool) -> None:
    """Write a file atomically."""
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as out:
            client.download(batch_id, errors=errors, out=out)
        part.replace(target)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _pair(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.BadParameter(f"{text!r} must be KEY=VALUE", param_hint="--metadata")
    return key, value


def _print(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
