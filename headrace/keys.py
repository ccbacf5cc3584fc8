"""`headrace keys`: make API keys, hash them, and list those that are accepted."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import click
import tomli_w
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from core.apikeys import DIGEST_PREFIX, printable
from core.config import LOCAL_KEY, api_keys, load_settings
from headrace.options import config_option, reported
from ingress.auth import Keys
from ingress.keys.entry import SCOPES, USUAL_SCOPES, Key, Limits, from_document
from ingress.keys.file import read_keys

KEY_BYTES = 32
LIMITS = ("per minute", "at once")


@click.group()
def keys() -> None:
 Folded"""Make, hash and list API keys.

 FoldedKeys stand in auth.api_keys, each a tenant of its own, or in the file that auth.keys_file names: there a tenant may
 Foldedhave several keys, each with scopes, limits and an end. A running ingress takes over a change of the file within
 Foldedseconds.
 Folded"""


@keys.command()
@click.option("--tenant", default="default", show_default=True, help="Whose tasks the key may see.")
@click.option("--id", "name", metavar="NAME", help="What logs and lists call the key.  [from its digest]")
@click.option(
 Folded"--scope", "scopes", multiple=True, type=click.Choice(sorted(SCOPES)), help="Repeatable.  [submit and read]"
)
@click.option("--requests-per-minute", type=click.IntRange(0), help="Submits per minute and ingress; 0: no limit.")
@click.option("--concurrency", type=click.IntRange(0), help="Requests held at once per ingress; 0: no limit.")
@click.option("--expires", metavar="TIME", help="When it ends, such as 2027-01-31T00:00:00Z.")
def new(
 Foldedtenant: str,
 Foldedname: str | None,
 Foldedscopes: tuple[str, ...],
 Foldedrequests_per_minute: int | None,
 Foldedconcurrency: int | None,
 Foldedexpires: str | None,
) -> None:
 Folded"""Print a new key, and the lines that admit it.

 FoldedThe key is shown this once and kept nowhere; the lines hold only its digest.
 Folded"""
 Foldedkey = "hr-" + secrets.token_urlsafe(KEY_BYTES)
 Foldedentry: dict[str, object] = {
 Folded    "id": name,
 Folded    "sha256": sha256(key.encode()).hexdigest(),
 Folded    "scopes": sorted(scopes or USUAL_SCOPES, reverse=True),
 Folded    "requests_per_minute": requests_per_minute,
 Folded    "concurrency": concurrency,
 Folded    "expires": expires,
 Folded}
 Foldedgiven = {member: value for member, value in entry.items() if value is not None}
 Foldedwith reported():
 Folded    from_document({"tenants": {tenant: {"keys": [given]}}})
 Foldedclick.echo(f"{key}\n\nThis key is not shown again. Add these lines to the keys file (auth.keys_file):\n")
 Foldedclick.echo(_block(tenant, given), nl=False)


@keys.command(name="hash")
def hash_() -> None:
 Folded"""Print sha256:HEX of a key that is typed or piped in.

 FoldedIt goes where the key would: into auth.api_keys, --api-key or, without sha256:, the keys file.
 Folded"""
 Foldedstdin = click.get_text_stream("stdin")
 Foldedkey = click.prompt("Key", hide_input=True) if stdin.isatty() else stdin.read().strip()
 Foldedif not printable(key):
 Folded    raise click.ClickException("a key must be printable ASCII without blanks, and not empty")
 Foldedclick.echo(DIGEST_PREFIX + sha256(key.encode()).hexdigest())


@keys.command(name="list")
@config_option
def list_(config: Path | None) -> None:
 Folded"""List the accepted keys: names, scopes, limits and ends; never a key.

 FoldedAlso a check of the keys file before a running ingress reads it: a mistake is named and the exit code is 1.
 Folded"""
 Foldedwith reported():
 Folded    settings = load_settings(config=config)
 Folded    limits = Limits(settings.auth.requests_per_minute, settings.auth.concurrency)
 Folded    path = settings.auth.keys_file
 Folded    found = Keys(
 Folded        api_keys(settings), limits=limits, from_file=read_keys(path, limits=limits) if path is not None else ()
 Folded    )
 Folded# Folded, because a name that is cut off cannot be searched for.
 Foldedtable = Table(*(Column(name, overflow="fold") for name in ("tenant", "key", "scopes", *LIMITS, "state")))
 Foldedfor key in found.entries():
 Folded    table.add_row(*map(Text, _row(key)))
 FoldedConsole().print(table)
 Foldedif not settings.auth.api_keys and path is None:
 Folded    click.echo(f"The only key is {LOCAL_KEY}: nothing is set, and the ingress listens on this machine alone.")


def _row(key: Key) -> tuple[str, ...]:
 Foldedlimits = (str(limit) if limit else "-" for limit in key.limits)
 Foldedreturn key.owner, key.name, " ".join(sorted(key.scopes, reverse=True)), *limits, _state(key)


def _state(key: Key) -> str:
 Foldedif not key.enabled:
 Folded    return "disabled"
 Foldedif key.expires_s is None:
 Folded    return "enabled"
 Foldedend = datetime.fromtimestamp(key.expires_s, UTC)
 Foldedreturn f"{'expired' if end <= datetime.now(UTC) else 'until'} {end:%Y-%m-%d %H:%M} UTC"


def _block(tenant: str, entry: dict[str, object]) -> str:
 Folded"""Write one key as TOML that may be added to what the file holds already."""
 Foldedquoted = f'"{tenant}"' if "." in tenant else tenant
 Foldedreturn f"[[tenants.{quoted}.keys]]\n{tomli_w.dumps(entry)}"
