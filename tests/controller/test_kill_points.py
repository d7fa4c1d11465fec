"""The operator is killed before and after every single one of its calls; and every kind of call goes wrong in every way.

What must hold is checked from outside (``operator_history``), by somebody who knows the data plane and the pods but not
the engine; and a run with a kill in it comes to the same end as one without.
"""

import pytest
from fake_api import Answer, Drop, Hang
from kill_scenarios import SCENARIOS, WRITES, places, play

pytestmark = [pytest.mark.looptime, pytest.mark.thorough]

SAME, OTHER = "operator-0", "operator-1"


async def survives(name: str, identity: str, step: int, first: int = 0) -> None:
    scenario = SCENARIOS[name]
    clean, calls, _ = await play(scenario)
    broken = []
    for n, after in places(calls)[first::step]:
        where = f"killed {'after' if after else 'before'} call {n} ({calls[n - 1]})"
        try:
            found, _, world = await play(scenario, kill=(n, after), identity=identity)
        except AssertionError as error:
            broken.append(f"{where}: {error}")
            continue
        assert world.api.killed.is_set(), f"{where}: never got there"
        if found != clean:
            broken.append(f"{where}: {found}")
    assert not broken, "\n\n".join([f"{len(broken)} of {len(places(calls)[first::step])}", *broken[:3]])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_kill_between_any_two_calls_loses_nothing(name):
    await survives(name, SAME, step=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_another_process_takes_over_after_a_kill_anywhere_and_loses_nothing(name):
    await survives(name, OTHER, step=3)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_kill_between_some_calls_loses_nothing(name):
    await survives(name, SAME, step=9)


@pytest.mark.parametrize("name", ["failing", "new revision while serving"])
async def test_another_process_takes_over_from_a_killed_one_and_loses_nothing(name):
    await survives(name, OTHER, step=17, first=5)


FAULTS = {
    "conflict": Answer(409, reason="Conflict"),
    "refused": Answer(422, reason="Invalid"),
    "forbidden": Answer(403, reason="Forbidden"),
    "too many": Answer(429, reason="TooManyRequests", retry_after=2),
    "broken": Answer(500, reason="InternalError"),
    "lost before": Drop(),
    "lost after": Drop(after_effect=True),
    "hangs before": Hang(),
    "hangs after": Hang(after_effect=True),
}


async def endures(name: str, kind: str, faults: dict, step: int) -> None:
    scenario, match = SCENARIOS[name], WRITES[kind]
    clean, calls, _ = await play(scenario)
    count = sum(
        call.verb == "patch"
        and call.resource == match.get("resource", call.resource)
        and call.subresource == match.get("subresource", "")
        for call in calls
    )
    assert count
    broken = []
    for label, fault in faults.items():
        for place in range(0, count, step):
            try:
                found, _, _ = await play(scenario, fault=(fault, match, place))
            except AssertionError as error:
                broken.append(f"{kind} {place} {label}: {error}")
                continue
            if found != clean:
                broken.append(f"{kind} {place} {label}: {found}")
    assert not broken, "\n\n".join([f"{len(broken)} of {len(faults) * count}", *broken[:3]])


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_write_that_goes_wrong_in_any_way_changes_nothing_of_the_outcome(name, kind):
    await endures(name, kind, FAULTS, step=4 if kind == "status" else 2)


@pytest.mark.parametrize("kind", WRITES)
async def test_a_write_that_goes_wrong_changes_nothing_of_the_outcome(kind):
    few = {label: FAULTS[label] for label in ("conflict", "refused", "lost after", "hangs before")}
    await endures("failing", kind, few, step=2)
