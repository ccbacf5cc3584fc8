"""The broker's jars: Apache Kafka 4.3.1 with all it needs, downloaded by jgo, with pinned SHA-256 sums.

The list names paths in a Maven repository, so `sha256sum -c` reads it too. It was made from the artifacts that jgo
resolves for ROOTS; after a version change `python -m compose.local.jars` prints a new list.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from compose.local.cache import cache_dir, cache_lock, write_atomic
from compose.local.errors import LocalStackError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

logger = logging.getLogger(__name__)

KAFKA_VERSION = "4.3.1"
# Kafka ships no binding from slf4j 1.7 to log4j 2, so without the second root the broker logs nothing. Its version is
# that of Kafka's own log4j-core, and it is resolved alone: beside Kafka, its parent would pin kafka-clients 3.9.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
LIST = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")
DOWNLOADS_AT_ONCE = 6  # the round trips of 46 small files, not the bandwidth, make up most of the time
NETWORK_TIMEOUT_S = 30

Progress = Callable[[str], None]


def pinned() -> dict[str, str]:
    """Return the checked-in list: repository path to SHA-256 in hex."""
    pairs = (line.split(maxsplit=1) for line in LIST.read_text().splitlines() if line.strip())
    return {path: digest for digest, path in pairs}


def class_path(progress: Progress = lambda _: None) -> list[Path]:
    """Return the jars in a fixed order, downloaded if missing and verified if new.

    Later calls read no jar and need no network: they compare sizes and times with those noted after the verification.
    """
    repository = cache_dir() / "repository"
    stamp = cache_dir() / f"kafka-{KAFKA_VERSION}.verified.json"
    wanted = pinned()
    jars = [repository / name for name in sorted(wanted)]
    if _stamped(stamp, wanted, jars):
        return jars
    with cache_lock("jars"):
        if not _stamped(stamp, wanted, jars):
            _fetch(repository, wanted, progress)
            write_atomic(stamp, json.dumps(_stamp(wanted, jars)))
    return jars


def _stamp(wanted: dict[str, str], jars: Iterable[Path]) -> dict[str, object]:
    states = {str(jar): [jar.stat().st_size, jar.stat().st_mtime_ns] for jar in jars}
    return {"list": wanted, "jars": states}


def _stamped(stamp: Path, wanted: dict[str, str], jars: list[Path]) -> bool:
    try:
        return bool(json.loads(stamp.read_text()) == _stamp(wanted, jars))
    except (OSError, ValueError):
        return False


def _fetch(repository: Path, wanted: dict[str, str], progress: Progress) -> None:
    missing = [name for name, digest in sorted(wanted.items()) if _digest(repository / name) != digest]
    if not missing:
        return
    progress(f"fetching Apache Kafka {KAFKA_VERSION}: {len(missing)} jars, about 45 MB, once")
    context = _context(repository)
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        downloads = [pool.submit(_fetch_one, context, repository, name, wanted[name]) for name in missing]
        try:
            for done, download in enumerate(downloads, 1):
                download.result()
                if done % 10 == 0 or done == len(downloads):
                    progress(f"  {done} of {len(downloads)} jars")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _context(repository: Path) -> MavenContext:
    from jgo.config import GlobalSettings  # noqa: PLC0415 - a tenth of a second that a warm start need not pay
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    # jgo's own settings may name a mirror of Maven Central; it is asked first.
    remotes = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    return MavenContext(repo_cache=repository, remote_repos=remotes, timeout=NETWORK_TIMEOUT_S)


def _fetch_one(context: MavenContext, repository: Path, name: str, digest: str) -> None:
    path = repository / name
    path.unlink(missing_ok=True)  # a partial download of an earlier run: jgo would accept it
    *group, artifact, version, _ = PurePosixPath(name).parts
    try:
        context.project(".".join(group), artifact).at_version(version).artifact().resolve()
    except Exception as error:  # jgo lets RuntimeError, AssertionError and any requests error through
        path.unlink(missing_ok=True)
        raise LocalStackError(
            f"cannot fetch {path.name} of Apache Kafka ({error}); check the network, or use --kafka HOST:PORT"
        ) from error
    if (found := _digest(path)) != digest:
        path.unlink(missing_ok=True)
        raise LocalStackError(
            f"{path.name} has SHA-256 {found}, expected {digest}; it was deleted: check proxies between this machine "
            "and Maven Central, then start again"
        )


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as jar:
            return hashlib.file_digest(jar, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def resolved() -> dict[str, str]:
    """Resolve ROOTS by their POM files and return path to SHA-256, as `pinned` does."""
    import jgo  # noqa: PLC0415

    kafka, binding = ROOTS
    artifacts = [*jgo.resolve(kafka), jgo.resolve(binding)[0]]
    found = {}
    for artifact in artifacts:
        path = artifact.resolve()
        found[path.relative_to(artifact.context.repo_cache).as_posix()] = _digest(path) or ""
    return found


if __name__ == "__main__":
    print("\n".join(f"{digest}  {name}" for name, digest in sorted(resolved().items())))
