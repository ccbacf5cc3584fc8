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
    """Run a role until it ends or is told to stop; return the process' exit code.

    SIGTERM and SIGINT set the event that `main` is given; the same signal once more ends the process at once. Only the
    same one, because a Ctrl-C reaches a whole terminal and is followed by the supervisor's SIGTERM.
    """
    setup_logging(settings.log, role, secrets=secrets(settings))
    logging.captureWarnings(True)
    _tell_passed_over()
    patch_connections()
    # What was imported stays for good. Walking its 110,000 objects stopped the loop for 60 ms at every full collection.
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
    except* Exception:  # the last place that can say what ended the process
        log.exception("%s ended by an unexpected error", role, extra={"event": "role_crashed"})
    return code


def _tell_passed_over() -> None:
    """Say in one line which variables count as nothing: one of them may have the name of a setting."""
    if names := service_variables(os.environ):
        log.info(
            "%d variables that Kubernetes has made for a Service are no settings: %s",
            len(names),
            ", ".join(names),
            extra={"event": "service_variables"},
        )


async def _until_done(main: Main) -> None:
    stop = asyncio.Event()
    seen: set[signal.Signals] = set()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if number in seen:
            os._exit(128 + number)
        seen.add(number)
        log.info("stopping on %s", number.name, extra={"event": "role_stopping", "signal": number.name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    await main(stop)


def _leaves(group: BaseExceptionGroup[HeadraceError]) -> Iterator[HeadraceError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
