"""`headrace keys`: create API keys, hash them, and list the accepted ones."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import click
import tomli_w

from core.apikeys import DIGEST_PREFIX, printable
from core.settings.loader import LOCAL_KEY, api_keys
from headrace.options import config_option, load_here, reported
from headrace.output import Column, Output, output_option, show_table
from ingress.auth.key_entry import SCOPES, USUAL_SCOPES, Key, KeyQuota, from_document
from ingress.auth.keys import Keys
from ingress.auth.keys_file import read_keys

KEY_BYTES = 32
COLUMNS = (
    Column("tenant", "tenant"),
    Column("key", "key"),
    Column("state", "state", 1),
    Column("scopes", "scopes", 2),
    Column("per-minute", "requests_per_minute", 3),
    Column("concurrency", "concurrency", 4),
)


@click.group()
def keys() -> None:
    """Create, hash and list API keys.

    Keys are set in auth.api_keys, each a tenant of its own, or in the file auth.keys_file: there a tenant may have
    several keys, each with scopes, limits and an expiry. A running ingress reloads the file within seconds.
    """


@keys.command()
@click.option("--tenant", default="default", show_default=True, help="Tenant of the key.")
@click.option("--id", "name", metavar="NAME", help="Name of the key in logs and lists.  [from its digest]")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(sorted(SCOPES)), help="Repeatable.  [submit and read]"
)
@click.option("--requests-per-minute", type=click.IntRange(0), help="Submissions per minute and ingress; 0: no limit.")
@click.option("--concurrency", type=click.IntRange(0), help="Open requests per ingress; 0: no limit.")
@click.option("--expires", metavar="TIME", help="Expiry, such as 2027-01-31T00:00:00Z.")
def new(
    tenant: str,
    name: str | None,
    scopes: tuple[str, ...],
    requests_per_minute: int | None,
    concurrency: int | None,
    expires: str | None,
) -> None:
    """Print a new key, and its lines for the keys file.

    The key is printed once and not stored; the lines contain only its digest.
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
    click.echo(f"{key}\n\nThis key is not printed again. Add these lines to the keys file (auth.keys_file):\n")
    click.echo(_block(tenant, given), nl=False)


@keys.command(name="hash")
def hash_() -> None:
    """Print sha256:HEX of a key from the prompt or standard input.

    Use it instead of the key: in auth.api_keys, --api-key or, without sha256:, the keys file.
    """
    stdin = click.get_text_stream("stdin")
    key = click.prompt("Key", hide_input=True) if stdin.isatty() else stdin.read().strip()
    if not printable(key):
        raise click.ClickException("a key must be printable ASCII without blanks, and not empty")
    click.echo(DIGEST_PREFIX + sha256(key.encode()).hexdigest())


@keys.command(name="list")
@config_option
@output_option
def list_(config: Path | None, output: Output) -> None:
    """List the accepted keys with names, scopes, limits and expiry; never the keys themselves.

    Also checks the keys file before a running ingress reloads it: a mistake is reported with exit code 1.
    """
    with reported():
        settings = load_here(config)
        limits = KeyQuota(settings.auth.requests_per_minute, settings.auth.concurrency)
        path = settings.auth.keys_file
        found = Keys(
            api_keys(settings), limits=limits, from_file=read_keys(path, limits=limits) if path is not None else ()
        )
    show_table([_row(key) for key in found.entries()], COLUMNS, output=output, nothing="No keys found.")
    if output != "json" and not settings.auth.api_keys and path is None:
        click.echo(f"The only key is {LOCAL_KEY}: none is configured, and the ingress listens on loopback only.")


def _row(key: Key) -> dict[str, object]:
    limits = [limit or None for limit in key.limits]
    return {
        "tenant": key.owner,
        "key": key.name,
        "state": _state(key),
        "scopes": ",".join(sorted(key.scopes, reverse=True)),
        "requests_per_minute": limits[0],
        "concurrency": limits[1],
    }


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
