"""`python -m headrace.docs`: renew the generated parts of the pages.

Apart, because Python runs the module of this name.
"""

from __future__ import annotations

from pathlib import Path

import click

from headrace.docs import write

if __name__ == "__main__":
    click.echo("\n".join(write(Path(__file__).parents[2])) or "no changes")
