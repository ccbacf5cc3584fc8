"""How a role runs as a process: event loop, logging, signals, exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

import uvloop

from core.errors import HeadraceError
from core.kafka.aiokafka_patches import patch_connections
from core.observability.logs import setup_logging
from core.observability.tracing import tracing
from core.settings.environment import service_variables
from core.settings.loader import secrets
from core.settings.models import Settings

log = logging.getLogger(__name__)

Main = Callable[[asyncio.Event], Awaitable[None]]


def run_role(role: str, settings: Settings, main: Main) -> int:
    """Run a role until it ends or is stopped; return the exit code of the process.

    SIGTERM and SIGINT set the event that `main` is given; the same signal once more ends the process
    immediately. Only the same one, because a Ctrl-C reaches every process of a terminal and is followed by the
    supervisor's SIGTERM.
    """
    setup_logging(settings.log, role, secrets=secrets(settings))
    logging.captureWarnings(True)
    _report_ignored_variables()
    _report_renamed(settings)
    patch_connections()
    # Imported modules are never freed; traversing their 110,000 objects stopped the loop for 60 ms per full collection.
    gc.collect()
    gc.freeze()
    code = 1
    try:
        with tracing(role), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_done(main))
        code = 0
    except* HeadraceError as group:
        for error in _leaves(group):
            log.error("%s", error, extra={"event": "role_failed", "code": error.code})
    except* Exception:  # nothing above reports it
        log.exception("%s stopped by an unexpected error", role, extra={"event": "role_crashed"})
    return code


def _report_renamed(settings: Settings) -> None:
    for old, new in settings.renamed:
        log.warning(
            "setting %s is deprecated and will be removed in the next version; use %s",
            old,
            new,
            extra={"event": "setting_renamed"},
        )


def _report_ignored_variables() -> None:
    """Log which variables are ignored: one of them may have the name of a setting."""
    if names := service_variables(os.environ):
        log.info(
            "ignoring %d variables that Kubernetes set for a Service: %s",
            len(names),
            ", ".join(names),
            extra={"event": "service_variables"},
        )


async def _until_done(main: Main) -> None:
    stop = asyncio.Event()
    seen: set[signal.Signals] = set()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if number in seen:
            os._exit(128 + number)
        seen.add(number)
        log.info("stopping on %s", number.name, extra={"event": "role_stopping", "signal": number.name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await main(stop)


def _leaves(group: BaseExceptionGroup[HeadraceError]) -> Iterator[HeadraceError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
