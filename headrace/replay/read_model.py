"""Delete read models: an ingress without one rebuilds it from the topics at its start.

Apart from the other replay commands, because it needs neither Kafka nor a replay state.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from core.errors import ConfigError, Unavailable
from core.instance_lock import InstanceLock, claim_instance

STORES = ("view", "deliveries")


class LocalReadModel(NamedTuple):
    """A read model on this machine."""

    folder: Path
    dropped: bool
    """False: a running ingress uses it."""


def delete_read_models(data_dir: Path) -> Iterator[LocalReadModel]:
    """Delete the read models that no running ingress uses; raises ConfigError."""
    root = data_dir / "ingress"
    stores = sorted(store for name in STORES for store in root.glob(f"*/{name}"))
    if not stores:
        return
    held: list[InstanceLock] = []
    try:
        with suppress(
            Unavailable
        ):  # all free instance numbers are claimed, so no ingress can start on a folder that is being deleted
            while True:
                held.append(claim_instance(root, limit=1 + max(_numbers(stores))))
        free = {one.folder for one in held}
        for store in stores:
            if store.parent in free:
                shutil.rmtree(store)
            yield LocalReadModel(store, store.parent in free)
    except OSError as error:
        raise ConfigError(f"a read model in {root} cannot be deleted: {error.strerror}") from error
    finally:
        for one in held:
            one.release()


def _numbers(stores: list[Path]) -> list[int]:
    return [int(store.parent.name) for store in stores if store.parent.name.isdigit()] or [0]
