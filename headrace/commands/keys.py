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
from core.settings.loader import LOCAL_KEY, api_keys
from headrace.options import config_option, load_here, reported
from ingress.auth.key_entry import SCOPES, USUAL_SCOPES, Key, Limits, from_document
from ingress.auth.keys import Keys
from ingress.auth.keys_file import read_keys

KEY_BYTES = 32
LIMITS = ("per minute", "at once")


@click.group()
def keys() -> None:
    """Make, hash and list API keys.

    Keys stand in auth.api_keys, each a tenant of its own, or in the file that auth.keys_file names: there a tenant may
    have several keys, each with scopes, limits and an end. A running ingress takes over a change of the file within
    seconds.
    """


@keys.command()
@click.option("--tenant", default="default", show_default=True, help="Whose tasks the key may see.")
@click.option("--id", "name", metavar="NAME", help="What logs and lists call the key.  [from its digest]")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(sorted(SCOPES)), help="Repeatable.  [submit and read]"
)
@click.option("--requests-per-minute", type=click.IntRange(0), help="Submits per minute and ingress; 0: no limit.")
@click.option("--concurrency", type=click.IntRange(0), help="Requests held at once per ingress; 0: no limit.")
@click.option("--expires", metavar="TIME", help="When it ends, such as 2027-01-31T00:00:00Z.")
def new(
    tenant: str,
    name: str | None,
    scopes: tuple[str, ...],
    requests_per_minute: int | None,
    concurrency: int | None,
    expires: str | None,
) -> None:
    """Print a new key, and the lines that admit it.

    The key is shown this once and kept nowhere; the lines hold only its digest.
    """
    key = "hr-" + secrets.token_urlsafe(KEY_BYTES)
    entry: dict[str, object] = {
        "id": name,
        "sha256": sha256(key.encode()).hexdigest(),
        "scopes": sorted(scopes or USUAL_SCOPES, reverse=True),
        "requests_per_minute": requests_per_minute,
        "concurrency": concurrency,
        "expires": expires,
    }
    given = {member: value for member, value in entry.items() if value is not None}
    with reported():
        from_document({"tenants": {tenant: {"keys": [given]}}})
    click.echo(f"{key}\n\nThis key is not shown again. Add these lines to the keys file (auth.keys_file):\n")
    click.echo(_block(tenant, given), nl=False)


@keys.command(name="hash")
def hash_() -> None:
    """Print sha256:HEX of a key that is typed or piped in.

    It goes where the key would: into auth.api_keys, --api-key or, without sha256:, the keys file.
    """
    stdin = click.get_text_stream("stdin")
    key = click.prompt("Key", hide_input=True) if stdin.isatty() else stdin.read().strip()
    if not printable(key):
        raise click.ClickException("a key must be printable ASCII without blanks, and not empty")
    click.echo(DIGEST_PREFIX + sha256(key.encode()).hexdigest())


@keys.command(name="list")
@config_option
def list_(config: Path | None) -> None:
    """List the accepted keys: names, scopes, limits and ends; never a key.

    Also a check of the keys file before a running ingress reads it: a mistake is named and the exit code is 1.
    """
    with reported():
        settings = load_here(config)
        limits = Limits(settings.auth.requests_per_minute, settings.auth.concurrency)
        path = settings.auth.keys_file
        found = Keys(
            api_keys(settings), limits=limits, from_file=read_keys(path, limits=limits) if path is not None else ()
        )
    # Folded, because a name that is cut off cannot be searched for.
    table = Table(*(Column(name, overflow="fold") for name in ("tenant", "key", "scopes", *LIMITS, "state")))
    for key in found.entries():
        table.add_row(*map(Text, _row(key)))
    Console().print(table)
    if not settings.auth.api_keys and path is None:
        click.echo(f"The only key is {LOCAL_KEY}: nothing is set, and the ingress listens on this machine alone.")


def _row(key: Key) -> tuple[str, ...]:
    limits = (str(limit) if limit else "-" for limit in key.limits)
    return key.owner, key.name, " ".join(sorted(key.scopes, reverse=True)), *limits, _state(key)


def _state(key: Key) -> str:
    if not key.enabled:
        return "disabled"
    if key.expires_s is None:
        return "enabled"
    end = datetime.fromtimestamp(key.expires_s, UTC)
    return f"{'expired' if end <= datetime.now(UTC) else 'until'} {end:%Y-%m-%d %H:%M} UTC"


def _block(tenant: str, entry: dict[str, object]) -> str:
    """Write one key as TOML that may be added to what the file holds already."""
    quoted = f'"{tenant}"' if "." in tenant else tenant
    return f"[[tenants.{quoted}.keys]]\n{tomli_w.dumps(entry)}"
