import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from local_cluster import eventually

from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.process import ProcessTable, tail
from canary_rollout.local.watchdog import marked_processes


@pytest.fixture
async def table(tmp_path):
    table = ProcessTable(tmp_path / "run", remove_run_dir=False)
    yield table
    await table.close(0.1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_output_goes_into_the_log_and_the_exit_code_is_reported(table, tmp_path):
    child = table.start(["sh", "-c", "echo out; echo err >&2; exit 4"], log=tmp_path / "a" / "x.log")
    assert await child.wait() == 4
    assert child.returncode == 4
    assert (tmp_path / "a" / "x.log").read_text() == "out\nerr\n"
    assert not table.children


async def test_a_process_that_ignores_the_request_is_killed_after_the_grace_period(table, tmp_path):
    log = tmp_path / "log"
    child = table.start(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"], log=log)
    await eventually(lambda: log.read_text() == "deaf\n", "deaf")
    assert await child.stop(0.2) == -signal.SIGKILL


async def test_a_frozen_process_can_be_stopped(table):
    child = table.start(["sleep", "100"])
    child.send(signal.SIGSTOP)
    assert await child.stop(5.0) == -signal.SIGTERM


async def test_what_a_process_leaves_in_its_group_ends_with_it(table, tmp_path):
    child = table.start(["sh", "-c", "sleep 100 & echo $!"], log=tmp_path / "log")
    await child.wait()
    left = int((tmp_path / "log").read_text())
    await eventually(lambda: not alive(left), "gone")


async def test_an_environment_is_passed_and_nothing_else_is(table, tmp_path):
    child = table.start(["/usr/bin/env"], env={"ONLY": "this"}, log=tmp_path / "log")
    await child.wait()
    names = {line.partition("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert names == {"ONLY", "CANARY_ROLLOUT_LOCAL_RUN"}


async def test_a_program_that_does_not_exist_is_an_error_of_its_caller(table):
    with pytest.raises(FileNotFoundError):
        table.start(["/no/such/program"])


async def test_a_failure_shows_the_end_of_the_log(table, tmp_path):
    child = table.start(["sh", "-c", "echo line one; echo the reason; exit 1"], name="thing", log=tmp_path / "log")
    await child.wait()
    assert "thing ended (exit code 1)" in str(child.failure("ended"))
    assert "the reason" in str(child.failure("ended"))


def test_the_tail_of_a_missing_log_is_empty(tmp_path):
    assert tail(tmp_path / "none") == ""


async def test_closing_ends_everything_even_what_left_its_group_and_removes_the_run_directory(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    table = ProcessTable(run_dir, remove_run_dir=True)
    child = table.start(["sh", "-c", "setsid sleep 100 & sleep 100"], log=run_dir / "log")
    await eventually(lambda: len(marked_processes(table.marker)) == 3, "three processes up")
    await table.close(0.5)
    assert child.returncode is not None
    assert marked_processes(table.marker) == []
    assert not run_dir.exists()


async def test_after_the_watchdog_nothing_can_be_started(tmp_path):
    table = ProcessTable(tmp_path, remove_run_dir=False)
    await table.close()
    with pytest.raises(LocalClusterError, match="start a new cluster"):
        table.start(["true"])


OWNER = """
import asyncio, sys
from pathlib import Path
from canary_rollout.local.process import ProcessTable
async def main():
    table = ProcessTable(Path(sys.argv[1]), remove_run_dir=True)
    table.start(["sleep", "100"])
    # As nginx: it overwrites its own environment, so only its group finds it.
    table.start(["env", "-i", "sleep", "100"])
    print(table.marker, *(child.pid for child in table.children), flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""


async def test_nothing_is_left_when_the_owner_is_killed(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(run_dir), stdout=subprocess.PIPE, start_new_session=True
    )
    marker, *pids = (await owner.stdout.readline()).decode().split()
    assert all(alive(pid) for pid in pids)
    os.killpg(owner.pid, signal.SIGKILL)
    await owner.wait()
    await eventually(lambda: not any(alive(pid) for pid in pids), "ended")
    await eventually(lambda: not run_dir.exists(), "removed")
    assert marked_processes(marker) == []
