import asyncio
import os

import pytest

from canary_rollout.local import build
from canary_rollout.local.build import CONTROLPLANE, PROMETHEUS, GoProgram, ensure_program, program_directory
from canary_rollout.local.cache import cache_dir
from canary_rollout.local.errors import BuildError

MAIN = 'package main\n\nvar version = "none"\n\nfunc main() { println("hello", version) }\n'
HELLO = GoProgram("hello", (".",), ("hello",), ldflags="-X main.version=1.2.3")


@pytest.fixture
def hello(monkeypatch, tmp_path):
    source = tmp_path / "go" / "hello"
    source.mkdir(parents=True)
    (source / "go.mod").write_text("module example.com/hello\n\ngo 1.21\n")
    (source / "main.go").write_text(MAIN)
    monkeypatch.setattr(build, "SOURCES", tmp_path / "go")
    # Go's own cache lies below the same variable; the tests need not compile Go's runtime again.
    monkeypatch.setenv("GOCACHE", os.environ.get("GOCACHE") or str(cache_dir().parent / "go-build"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return source


def test_the_sources_of_both_programs_are_there_and_pinned_by_hash():
    for program in (CONTROLPLANE, PROMETHEUS):
        directory = build.SOURCES / program.name
        assert (directory / "go.sum").stat().st_size > 10_000
        assert "canary-rollout.dev/local" in (directory / "go.mod").read_text()
    assert CONTROLPLANE.name in program_directory(CONTROLPLANE).name


@pytest.mark.slow
async def test_a_program_is_built_once_with_progress_and_again_when_its_source_changes(hello):
    reports = []
    directory = await ensure_program(HELLO, reports.append)
    assert [entry.name for entry in directory.iterdir()] == ["hello"]
    last = reports[-1]
    assert last.step == "build hello"
    assert last.done == last.total > 10
    process = await asyncio.create_subprocess_exec(str(directory / "hello"), stderr=asyncio.subprocess.PIPE)
    _, output = await process.communicate()
    assert output == b"hello 1.2.3\n"

    reports.clear()
    assert await ensure_program(HELLO, reports.append) == directory
    assert reports == []
    (hello / "main.go").write_text(MAIN.replace("hello", "bye"))
    assert await ensure_program(HELLO, reports.append) != directory


@pytest.mark.slow
async def test_a_failing_build_shows_the_compilers_words_and_leaves_nothing(hello, tmp_path):
    (hello / "main.go").write_text("package main\n\nfunc main() { undefined_thing() }\n")
    with pytest.raises(BuildError, match="undefined_thing"):
        await ensure_program(HELLO)
    assert not [entry for entry in (tmp_path / "cache" / "canary-rollout" / "bin").iterdir() if entry.is_dir()]


@pytest.mark.slow
async def test_a_cancelled_build_leaves_nothing(hello, tmp_path):
    started = asyncio.Event()
    building = asyncio.create_task(ensure_program(HELLO, lambda _: started.set()))
    await started.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert not [entry for entry in (tmp_path / "cache" / "canary-rollout" / "bin").iterdir() if entry.is_dir()]
