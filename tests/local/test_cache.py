import asyncio
import subprocess
import sys

import pytest

from canary_rollout.local.cache import cache_dir, content_key, ensure_directory, exclusive

HOLD_LOCK = """
import asyncio, sys
from pathlib import Path
from canary_rollout.local.cache import exclusive
async def main():
    async with exclusive(Path(sys.argv[1])):
        print("locked", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def hold(lock):
    return subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(lock)], stdout=subprocess.PIPE)


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "canary-rollout"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(cache_dir()) == "/home/somebody/.cache/canary-rollout"


def test_the_key_changes_with_names_contents_and_flags(tmp_path):
    for directory, name, content in [("a", "f", "1"), ("b", "f", "2"), ("c", "g", "1"), ("d", "f", "1")]:
        (tmp_path / directory).mkdir()
        (tmp_path / directory / name).write_text(content)
    keys = [content_key((tmp_path / directory).iterdir()) for directory in "abcd"]
    assert len(set(keys[:3])) == 3
    assert keys[0] == keys[3]
    assert content_key((tmp_path / "a").iterdir(), "-tags", "x") != content_key((tmp_path / "a").iterdir(), "-tagsx")


async def test_of_several_that_want_it_at_once_one_builds(tmp_path):
    built = []

    async def build(directory):
        built.append(directory)
        await asyncio.sleep(0.05)
        (directory / "program").write_text("x")

    target = tmp_path / "bin" / "program-1"
    results = await asyncio.gather(*(ensure_directory(target, build) for _ in range(3)))
    assert results == [target] * 3
    assert len(built) == 1
    assert (target / "program").read_text() == "x"
    assert [entry.name for entry in target.parent.iterdir() if entry.is_dir()] == ["program-1"]


async def test_a_failed_build_leaves_nothing_and_can_be_tried_again(tmp_path):
    async def fail(directory):
        (directory / "half").write_text("x")
        raise RuntimeError("no compiler")

    async def work(directory):
        (directory / "whole").write_text("x")

    target = tmp_path / "program-1"
    with pytest.raises(RuntimeError, match="no compiler"):
        await ensure_directory(target, fail)
    assert not target.exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.is_dir()]
    await ensure_directory(target, work)
    assert (target / "whole").exists()


async def test_a_lock_is_waited_for_and_freed_by_the_kernel_when_its_holder_is_killed(tmp_path):
    lock = tmp_path / "lock"
    holder = await asyncio.to_thread(hold, lock)
    waiting = asyncio.Event()
    try:
        assert await asyncio.to_thread(holder.stdout.readline) == b"locked\n"

        async def take():
            async with exclusive(lock, waiting.set):
                return holder.poll() is not None

        taking = asyncio.create_task(take())
        await waiting.wait()
        holder.kill()
        await asyncio.to_thread(holder.wait)
        assert await taking
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
