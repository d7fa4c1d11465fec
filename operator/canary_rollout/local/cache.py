# ruff: noqa: ASYNC240  # these calls are a few stats and renames of local directories
"""The user's cache directory: built programs and installed tools, each under a key that names its inputs."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

LOCK_POLL_SECONDS = 0.2


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/canary-rollout`` (or ``~/.cache/canary-rollout``), not created yet."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "canary-rollout"


def content_key(files: Iterable[Path], *extra: str) -> str:
    """Return 16 hex digits that change when a file's name or content, or one of ``extra``, changes."""
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda file: file.name):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    for text in extra:
        digest.update(f"\0{len(text)}\0{text}".encode())
    return digest.hexdigest()[:16]


@contextlib.asynccontextmanager
async def exclusive(lock_file: Path, waiting: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """Hold ``lock_file`` against every other process; ``waiting`` is called once if somebody else has it.

    The kernel releases the lock with the process, so a kill -9 leaves no stale one.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waiting is not None and not told:
                    waiting()
                    told = True
                await asyncio.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


async def ensure_directory(
    target: Path,
    build: Callable[[Path], Awaitable[None]],
    waiting: Callable[[], None] | None = None,
) -> Path:
    """Return ``target``, having filled it with ``build`` if it does not exist.

    ``build`` gets an empty directory beside the target, which takes the target's name only when it is complete.
    Of several processes one builds and the others wait for it.
    """
    if target.is_dir():
        return target
    async with exclusive(target.parent / f".{target.name}.lock", waiting):
        if target.is_dir():
            return target
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            await build(unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(target)
        finally:
            if unfinished.exists():
                await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
    return target
