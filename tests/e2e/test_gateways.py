"""Gateway API and HTTPProxy through Contour and Envoy, which nobody here wrote, in a network of their own.

A whole rollout and a rollback of each, both at the same time, under load (``tests/plugins/gateway_play.py``).
"""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from release_play import told

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLAY = Path(__file__).parents[1] / "plugins" / "gateway_play.py"
LONGEST = 900.0
CASES = ("route", "proxy")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seen():
    """What the play showed, by case."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here: a network of its own cannot be made")
    code, _, words = await _run("unshare", "-rn", "true", within=60.0)
    if code:
        pytest.skip(f"a network of its own is forbidden here: {words.strip()}")
    code, output, words = await _run("unshare", "-rn", sys.executable, str(PLAY), within=LONGEST)
    assert code == 0, words[-6000:]
    return json.loads(output.splitlines()[-1])


async def _run(*words: str, within: float) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(within):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # the cluster inside ends with it
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize("case", CASES)
async def test_a_release_goes_through_all_weights_and_a_broken_one_comes_back(seen, case):
    phases = seen[case]["phases"]
    assert "Promoting" in phases[: phases.index("Succeeded")]
    assert phases[-1] == "RolledBack"
    assert {50, 500, 2500, 10_000} <= {int(weight) for weight in seen[case]["counted"]}


@pytest.mark.parametrize("case", CASES)
async def test_no_request_fails_and_every_answer_is_the_applications(seen, case):
    counts = seen[case]["counts"]["all"]
    told(
        f"{case}: {counts['answered']} answers, {counts['transport_errors']} transport errors, {counts['no_app']} of no app"
    )
    assert counts["sent"] > 5000
    assert (counts["transport_errors"], counts["no_app"], counts["not_sent"]) == (0, 0, 0), counts
    assert seen[case]["counts"]["good"]["app_errors"] == 0
    assert counts["app_errors"] > 0, "the broken version was never asked"


@pytest.mark.parametrize("case", CASES)
async def test_a_weight_counts_only_once_the_gateway_has_reported_it(seen, case):
    accepted, counted = seen[case]["accepted"], seen[case]["counted"]
    for weight in ("50", "500", "2500", "10000"):
        assert counted[weight] > accepted[weight], f"{weight}: {counted[weight]} before {accepted[weight]}"


@pytest.mark.parametrize("case", CASES)
async def test_after_the_rollback_nobody_gets_the_broken_version(seen, case):
    assert seen[case]["after_rollback"] == 0
